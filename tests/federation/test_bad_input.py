"""Bad input through the real command: one sentence, a non-zero exit code, and nothing already written is lost."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml
from PIL import Image

from fed_fsad.cli import main
from fed_fsad.data.scan import forget_scans
from tests.conftest import write_image, write_set

Break = Callable[[Path], object]

COUNTS = {"train/normal": 16, "train/scar": 8, "test/normal": 3, "test/scar": 3}
SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "data": {"kind": "folder", "root": "replaced by --data", "task": "skin"},
    "hospitals": [{"name": "north", "holds": {"share": 2}}, {"name": "south", "holds": {"share": 1}}],
    "methods": {"d24fad": {"teacher": {"name": "random"}, "image_size": 64, "local_steps": 1}},
    "federation": {"rounds": 1},
    "evaluation": {"shots": [2], "draws": 1},
    "arms": [],
}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def sentence(self, code: int) -> str:
        """What stderr says after "error: ", all of it in one line, after an exit with `code`."""
        assert self.code == code, self.err
        assert self.err.startswith("error: ")
        assert self.err.count("\n") == 1
        return self.err.removeprefix("error: ").rstrip("\n")


class Desk:
    """A folder with a config and images, and the command to run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images = write_set(folder / "images", COUNTS)
        self.run = folder / "run"
        self.config = folder / "tiny.yaml"
        self.config.write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")

    def simulate(self, *arguments: str) -> Ended:
        """`fed-fsad simulate tiny.yaml --out run --data images ARGUMENTS`, in this process."""
        forget_scans()  # a command starts with nothing in memory
        command = ["fed-fsad", "simulate", str(self.config), "--out", str(self.run), "--data", str(self.images)]
        out, err = StringIO(), StringIO()
        argv = patch.object(sys, "argv", [*command, *arguments])
        with argv, redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            main()
        return Ended(int(ended.value.code or 0), out.getvalue(), err.getvalue())

    def files(self) -> dict[str, bytes]:
        """Everything in the run directory, byte for byte."""
        inside = sorted(self.run.rglob("*"))
        return {str(path.relative_to(self.run)): path.read_bytes() for path in inside if path.is_file()}

    def summary(self) -> dict[str, Any]:
        """summary.json of the run."""
        loaded: dict[str, Any] = json.loads((self.run / "summary.json").read_text(encoding="utf-8"))
        return loaded


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    desk = Desk(tmp_path_factory.mktemp("original"))
    assert desk.simulate().code == 0
    return desk


@pytest.fixture
def finished(original: Desk, desk: Desk) -> Desk:
    """A desk with a run that came to its end; its images are everybody's, so leave them whole."""
    desk.images = original.images
    shutil.copytree(original.run, desk.run)
    return desk


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def cut_short_all(folder: Path) -> None:
    for path in folder.iterdir():
        cut_short(path)


def add_mask_of_another_size(images: Path) -> None:
    mask = images / "masks" / "test" / "scar" / "001.png"
    mask.parent.mkdir(parents=True)
    Image.new("L", (8, 8), 255).save(mask)


BAD_IMAGES: dict[str, tuple[Break, tuple[str, ...], str]] = {
    "empty class folder": (
        lambda images: (images / "train" / "wart").mkdir(),
        (),
        "train/wart holds no PNG, JPEG, TIFF, DICOM or NIfTI image; fill it or remove it",
    ),
    "fewer than K normals": (
        lambda images: None,
        ("--set", "evaluation.shots=[2, 6]"),
        "task 'skin' has 4 normal images to draw supports from but 6 are needed; add normal images",
    ),
    "no class is normal": (lambda images: None, ("--set", "data.normal=[healthy]"), "name the normal class"),
    "every image of a class is damaged": (
        lambda images: cut_short_all(images / "train" / "scar"),
        (),
        "no image of 'scar' in train can be read, e.g. train/scar/000.png: the file is damaged",
    ),
    "mask of another size": (add_mask_of_another_size, (), "mask masks/test/scar/001.png is 8 x 8"),
    "test image also in train": (
        lambda images: shutil.copy(images / "train" / "normal" / "004.png", images / "test" / "normal" / "new.png"),
        (),
        "a test image is also in train: test/normal/new.png equals train/normal/004.png; remove one",
    ),
    "manifest leaves its root": (
        lambda images: (images / "list.csv").write_text("path,split,label\n../tiny.yaml,train,normal\n"),
        ("--set", "data.manifest=list.csv"),
        "list.csv, line 2: path ../tiny.yaml leaves the data set's root",
    ),
    "no such folder": (lambda images: shutil.rmtree(images), (), "images is no folder; correct data.root"),
    "name that looks like markup": (
        lambda images: (images / "train" / "[wart]").mkdir(),
        (),
        "train/[wart] holds no PNG",
    ),
}


@pytest.mark.parametrize(("spoil", "arguments", "words"), BAD_IMAGES.values(), ids=BAD_IMAGES)
def test_images_that_do_not_serve(desk: Desk, spoil: Break, arguments: tuple[str, ...], words: str) -> None:
    spoil(desk.images)
    sentence = desk.simulate(*arguments).sentence(1)
    assert words in sentence
    assert (desk.summary()["status"], desk.summary()["error"]) == ("failed", sentence)


def test_a_run_that_failed_on_its_images_goes_on_once_they_are_mended(desk: Desk) -> None:
    wart = desk.images / "train" / "wart"
    wart.mkdir()
    desk.simulate().sentence(1)
    assert "already holds a run; add --resume auto" in desk.simulate().sentence(1)
    wart.rmdir()
    assert desk.simulate("--resume", "auto").code == 0
    assert desk.summary()["status"] == "completed"
    assert desk.summary()["error"] is None


def test_one_bad_image_among_many_is_skipped_counted_and_listed_in_the_report(desk: Desk) -> None:
    cut_short(desk.images / "train" / "normal" / "003.png")
    (desk.images / "test" / "scar" / "000.png").write_bytes(b"no image at all")
    ended = desk.simulate()
    assert (ended.code, ended.err) == (0, "")
    skipped = desk.summary()["skipped_images"]
    assert [image["name"] for image in skipped] == ["test/scar/000.png", "train/normal/003.png"]
    assert all("damaged" in image["reason"] for image in skipped)
    page = (desk.run / "report.html").read_text(encoding="utf-8")
    assert all(image["name"] in page for image in skipped)
    examples = sum(site["examples"] for site in desk.summary()["sites"].values())
    assert examples == 15 - 15 // 4, "the hospitals share 15 readable normal images less the server's pool"


def renamed(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "holds": {}} for name in names]


BAD_SETTINGS = {
    "two hospitals of one name": ({"hospitals": renamed("north", "north")}, "two hospitals are called 'north'"),
    "unknown key": ({"federation": {"rouns": 3}}, "unknown key 'federation.rouns'; did you mean 'rounds'?"),
    "unknown class in lacks": (
        {"hospitals": [{"name": "north", "holds": {"lacks": ["skar"]}}]},
        "class that hospital 'north' lacks: 'skar' does not exist; did you mean 'scar'?",
    ),
    "unknown unseen category": ({"evaluation": {"unseen_categories": ["skar"]}}, "did you mean 'scar'?"),
    "more supports than the pool keeps": ({"evaluation": {"shots": [32]}}, "raise data.pool or lower the shots"),
}


@pytest.mark.parametrize(("change", "words"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_settings_that_cannot_be_meant(desk: Desk, change: dict[str, Any], words: str) -> None:
    desk.config.write_text(yaml.safe_dump({**SETTINGS, **change}), encoding="utf-8")
    assert words in desk.simulate().sentence(2)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("missing.yaml",), 2, "missing.yaml: the config cannot be read"),
        (("tiny.yaml", "--data", "nowhere"), 1, "nowhere is no folder; correct data.root"),
    ],
)
def test_as_a_process_of_its_own(desk: Desk, arguments: tuple[str, ...], code: int, words: str) -> None:
    program = Path(sys.executable).with_name("fed-fsad")
    done = subprocess.run([program, "simulate", *arguments], cwd=desk.folder, capture_output=True, text=True)
    assert words in Ended(done.returncode, done.stdout, done.stderr).sentence(code)


def test_another_run_in_the_same_folder_touches_nothing(finished: Desk) -> None:
    before = finished.files()
    assert "already holds a run; add --resume auto to continue it" in finished.simulate().sentence(1)
    assert finished.files() == before


def test_resume_with_a_changed_config_touches_nothing(finished: Desk) -> None:
    before = finished.files()
    sentence = finished.simulate("--resume", "require", "--set", "federation.rounds=2").sentence(1)
    assert "was started with another config: federation.rounds was 1 and is 2; resume it with the config" in sentence
    assert finished.files() == before


def test_resume_of_nothing_leaves_nothing(desk: Desk) -> None:
    assert "run holds no run to resume; use --resume fresh or auto" in desk.simulate("--resume", "require").sentence(1)
    assert not desk.run.exists()


def test_resume_auto_starts_where_nothing_lies(desk: Desk) -> None:
    assert desk.simulate("--resume", "auto").code == 0
    assert desk.summary()["status"] == "completed"


def test_hospitals_that_do_not_say_what_they_hold_cannot_be_simulated(desk: Desk) -> None:
    desk.config.write_text(yaml.safe_dump({**SETTINGS, "hospitals": [{"name": "north"}]}), encoding="utf-8")
    sentence = desk.simulate().sentence(2)
    assert "hospital 'north' does not say what it holds, which a simulation must know; state it under holds" in sentence
    assert not desk.run.exists()


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


BAD_CHECKPOINTS: dict[str, tuple[str, Break, str]] = {
    "a bit flipped": ("round-0001.safetensors", flip_a_bit, "round-0001.safetensors: the checkpoint is damaged"),
    "cut short": ("round-0001.safetensors", cut_short, "round-0001.safetensors: the checkpoint is damaged"),
    "gone": ("round-0001.safetensors", Path.unlink, "latest.json: the checkpoint cannot be read"),
    "pointer cut short": ("latest.json", cut_short, "latest.json: the checkpoint cannot be read"),
}


@pytest.mark.parametrize(("name", "spoil", "words"), BAD_CHECKPOINTS.values(), ids=BAD_CHECKPOINTS)
def test_a_damaged_checkpoint(finished: Desk, name: str, spoil: Break, words: str) -> None:
    path = finished.run / "checkpoints" / name
    whole = path.read_bytes()
    spoil(path)
    assert_refused_and_kept(finished, words)
    path.write_bytes(whole)
    assert finished.simulate("--resume", "require").code == 0, "with the file restored from a copy the run goes on"
    assert finished.summary()["status"] == "completed"


def test_a_checkpoint_of_another_run(original: Desk, desk: Desk) -> None:
    assert desk.simulate().code == 0
    shutil.rmtree(desk.run / "checkpoints")
    shutil.copytree(original.run / "checkpoints", desk.run / "checkpoints")
    assert_refused_and_kept(desk, "the checkpoint belongs to another run; restore the file from a copy")


def test_a_finished_run_keeps_its_results_when_its_images_spoil(desk: Desk) -> None:
    assert desk.simulate().code == 0
    write_image(desk.images / "test" / "normal" / "new.png", seed=1)
    assert_refused_and_kept(desk, "a test image is also in train")


def test_a_run_that_is_stopped_while_its_arms_train_is_running_until_they_are_there(desk: Desk) -> None:
    pooled = ("--set", "arms=[pooled]")
    with patch("simulations.simulate.run_arms", side_effect=KeyboardInterrupt):
        assert desk.simulate(*pooled).code == 130
    assert desk.summary()["status"] == "running"
    assert desk.summary()["rounds"] == 1, "the federation itself is finished"
    assert desk.simulate(*pooled, "--resume", "auto").code == 0
    assert desk.summary()["status"] == "completed"
    assert "pooled" in desk.summary()["methods"]["d24fad"]["arms"]


def assert_refused_and_kept(desk: Desk, words: str) -> None:
    """--resume ends with the sentence, and the finished run is what it was, to the last byte of its files."""
    before = desk.files()
    assert desk.summary()["status"] == "completed"
    assert words in desk.simulate("--resume", "require").sentence(1)
    assert desk.files() == before
