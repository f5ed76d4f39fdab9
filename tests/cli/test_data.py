"""`fed-fsad data ...` as a person calls it: what is printed, what is written, how it ends."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from PIL import Image

from fed_fsad.config import parse_config
from fed_fsad.data.adapters import LAYOUTS
from fed_fsad.data.scan import scan
from fed_fsad.data.settings import FolderData
from fed_fsad.errors import DataError
from simulations.simulate import ENGINES
from tests.cli.test_cli import DEMO, called
from tests.conftest import write_set

Call = Callable[..., tuple[int, str, str]]
COUNTS = {"train/normal": 12, "train/glioma": 11, "test/normal": 10, "test/glioma": 10}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """(exit code, stdout, stderr) of `fed-fsad data ARGUMENTS`, on a wide and plain terminal."""
    for name, value in {"COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments: called(monkeypatch, capsys, "data", *map(str, arguments))


def test_check_prints_a_line_per_finding_and_ends_with_0_for_warnings(call: Call, tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", COUNTS)
    shutil.copy(root / "train/normal/000.png", root / "train/normal/zz.png")
    code, out, err = call("check", root)
    assert (code, err) == (0, "")
    *lines, last = out.splitlines()
    assert last == "0 errors, 2 warnings"
    assert all(line.split()[0] in ("warning", "note") for line in lines)
    assert f"warning {root}: images listed more than once, of which the first is used: 1, e.g. train/normal/" in out
    assert "Class folders (folders): train 24 images (13 normal, 11 glioma); test 20 images" in out


def test_check_takes_every_slice_that_is_asked_for(call: Call, tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 900, (64, 64, 12)).astype(np.int16)
    (tmp_path / "train/normal").mkdir(parents=True)
    volume = nibabel.Nifti1Image(values, np.eye(4))  # type: ignore[no-untyped-call]
    nibabel.save(volume, tmp_path / "train/normal/p.nii")
    assert "1 train normal" in call("check", tmp_path)[1]
    assert "few" not in {
        f["code"] for f in json.loads(call("check", tmp_path, "--reading", "{slices: all}", "--json")[1])["findings"]
    }


def test_check_ends_with_1_for_errors_and_speaks_json(call: Call, tmp_path: Path) -> None:
    one, two = write_set(tmp_path / "one", COUNTS), write_set(tmp_path / "two", {"train/normal": 12})
    code, out, err = call("check", one, two, "--json")
    report = json.loads(out)
    assert (code, err, report["ok"], report["sites"]) == (1, "", False, [str(one), str(two)])
    (error,) = [finding for finding in report["findings"] if finding["severity"] == "error"]
    assert (error["code"], len(error["files"])) == ("copies-sites", 12)
    assert set(error) == {"severity", "code", "site", "message", "remedy", "files"}


def test_split_writes_a_manifest_that_the_printed_config_reads(call: Call, tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", COUNTS)
    shutil.copy(root / "train/normal/000.png", root / "test/normal/zz.png")
    out_file = tmp_path / "new" / "manifest.csv"
    arguments = ("split", root, "--out", out_file, "--task", "brain_mri", "--test-share", "0.25",
                 "--reading", "{fit: letterbox}")  # fmt: skip
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith("found: Class folders (folders): train 23 images (12 normal, 11 glioma); test 21 images")
    assert "train: 32 images (16 glioma, 16 normal)" in out
    assert "left out, further copies of a file: 1, e.g. train/normal/000.png" in out
    printed = yaml.safe_load(out.split("use it in a config:")[1])
    config = parse_config(
        yaml.safe_dump({**yaml.safe_load(Path(DEMO).read_text()), **printed,
                        "hospitals": [{"name": "a", "holds": {"share": 1}}],
                        "evaluation": {"shots": [2]}}), "printed")  # fmt: skip
    assert isinstance(config.data, FolderData)
    assert config.data.reading.fit == "letterbox"
    found = scan(config.data)
    assert (len(found.train), len(found.test)) == (32, 11)
    assert {sample.task for sample in found.train} == {"brain_mri"}
    first = out_file.read_bytes()
    assert call(*arguments, "--seed", "1")[::2] == (
        2,
        f"error: {out_file} exists already; choose another --out or remove it\n",
    )
    assert out_file.read_bytes() == first
    written = []
    for options in ([], ["--seed", "1"], ["--keep-test"]):
        out_file.unlink()
        assert call(*arguments, *options)[0] == 0
        written.append(out_file.read_bytes())
    assert written[0] == first != written[1]
    assert len(written[2].splitlines()) == 1 + 43


def test_columns_of_ones_own_reach_every_command_and_the_printed_config(call: Call, tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", {"train/normal": 6, "train/x": 6})
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    lines = [f"{name},{'test' if i % 3 else 'train'},{name.split('/')[1]},s{i % 2}" for i, name in enumerate(names)]
    (root / "list.csv").write_text("path,split,label,scanner\n" + "\n".join(lines))
    options = (root, "--manifest", "list.csv")
    assert "column 'scanner' is unknown" in call("split", *options, "--out", tmp_path / "no.csv")[2]
    own = (*options, "--own-column", "scanner")
    code, out, err = call("split", *own, "--out", tmp_path / "new.csv", "--no-alike")
    assert (code, err) == (0, "")
    assert yaml.safe_load(out.split("use it in a config:")[1])["data"]["columns"] == ["scanner"]
    assert (tmp_path / "new.csv").read_text().startswith("path,split,label,categories,patient,mask,part,site,scanner\n")
    assert call("preview", *own, "--out", tmp_path / "sheet.png")[0] == 0
    assert "column 'scanner'" not in call("check", *own)[1]


def test_preview_draws_a_sheet(call: Call, tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", COUNTS)
    code, out, err = call("preview", root, "--out", tmp_path / "sheet.png", "--columns", "3")
    assert (code, out, err) == (0, f"contact sheet: {tmp_path / 'sheet.png'}\n", "")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
    assert call("preview", root, "--out", root / "train/normal/000.png")[0] == 2, "an image of the user's is safe"


def test_phantoms_can_be_checked_and_shown_from_their_path_alone(call: Call, tmp_path: Path) -> None:
    code, out, err = call(
        "phantoms", "--out", tmp_path, "--task", "oct", "--task", "fundus", "--normal", "10", "--abnormal", "12",
        "--size", "64",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"{name}: 44 images, {tmp_path / name / 'manifest.csv'}" for name in ("oct", "fundus")]
    code, out, _ = call("check", tmp_path / "oct", tmp_path / "fundus")
    assert code == 0, out
    assert "Manifest (manifest): train 22 images (10 normal, 3 cystoid oedema" in out
    assert call("phantoms", "--out", tmp_path, "--task", "oct")[0] == 2


def test_a_run_on_folders_says_first_what_it_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def stop(*_: object) -> None:
        raise DataError("far enough; this is a test")

    monkeypatch.setitem(ENGINES, "inprocess", stop)
    root = write_set(tmp_path / "set", {"Training/notumor": 3, "Training/glioma": 2, "Testing/notumor": 1})
    config = str(Path(DEMO).with_name("brain_mri.yaml"))
    code, out, err = called(
        monkeypatch, capsys, "simulate", config, "--data", str(root), "--out", str(tmp_path / "run")
    )
    assert (code, err) == (1, "error: far enough; this is a test\n")
    assert out.replace("\n", "") == (
        "data: Brain Tumor MRI Dataset (Nickparvar) (brain_tumor_mri): train 5 images (3 normal, 2 glioma); "
        "test 1 images (1 normal); no patients known; no masks"
    )


def test_layouts_lists_every_layout_with_its_source(call: Call) -> None:
    code, out, err = call("layouts")
    assert (code, err) == (0, "")
    for layout in LAYOUTS.values():
        assert f"{layout.name}: {layout.title}\n    folder: {layout.shape}\n    source: {layout.source}\n" in out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["check", "set", "--layout", "aptos"], 2, "error: layout 'aptos' does not exist; did you mean 'aptos2019'?\n"),
        (
            ["check", "set", "--reading", "{slice: all}"],
            2,
            "error: unknown key 'reading.slice'; did you mean 'slices'?",
        ),
        (["check", "set", "--reading", "{slices"], 2, "error: --reading {slices is no valid YAML; write it like"),
        (["split", "gone", "--out", "m.csv"], 1, "error: gone is no folder; correct data.root\n"),
        (["preview", "set", "--out", "x.png"], 1, "error: no image in set is normal; name the normal class of glioma"),
        (
            ["split", "set", "--out", "m.csv", "--layout", "rsna"],
            1,
            "error: set has no stage_2_detailed_class_info.csv",
        ),
    ],
)
def test_what_a_user_gets_wrong_is_one_sentence(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_set(Path("set"), {"train/glioma": 1})
    found, out, err = call(*arguments)
    assert (found, out) == (code, "")
    assert err.startswith(said)
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"], "nothing is written"
