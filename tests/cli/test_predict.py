"""`fed-fsad predict`, `bank` and `export` as a person calls them, held against the method called by hand."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from fed_fsad import methods
from fed_fsad.config import parse_config
from fed_fsad.data.features import FeatureCache, Rows
from fed_fsad.data.images import FileSource
from fed_fsad.data.samples import Sample
from fed_fsad.data.signs import load_signs
from fed_fsad.methods.method import Method, SupportBank
from fed_fsad.methods.sdmad.detector import SdMad
from fed_fsad.methods.threshold import threshold
from fed_fsad.progress import PlainProgress
from server.checkpoint import load_checkpoint
from simulations.simulate import simulate
from tests.cli.test_cli import called
from tests.inference.conftest import drawn, run_folder, write_run

__all__ = ["drawn", "run_folder"]
Call = Callable[..., tuple[int, str, str]]
TINY = """
name: tiny
data: {kind: phantoms, test_normal: 2, test_abnormal: 2, pool: 2}
hospitals:
  - {name: north, holds: {organs: [oct], normal: 6, abnormal: 6}}
  - {name: south, holds: {organs: [liver_ct], normal: 6, abnormal: 6, style: 1}}
methods:
  d24fad: {image_size: 64, local_steps: 2, batch: 4}
  sdmad: {local_steps: 2, batch: 4}
federation: {rounds: 1, wait_s: 5}
evaluation: {shots: [2], draws: 1}
arms: []
"""


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """(exit code, stdout, stderr) of `fed-fsad ARGUMENTS`, on a wide and plain terminal."""
    for name, value in {"COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments: called(monkeypatch, capsys, *map(str, arguments))


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def assert_same(one: list[dict[str, str]], other: list[dict[str, str]]) -> None:
    """Equal words, and numbers that differ in their last digits at most."""
    assert [list(row) for row in one] == [list(row) for row in other]
    for left, right in zip(one, other, strict=True):
        for name, cell in left.items():
            same = cell == right[name] or float(cell) == pytest.approx(float(right[name]), abs=1e-6)
            assert same, (name, cell, right[name])


def rows_by_hand(method: Method, files: list[Path], root: Path, classes: list[tuple[str, ...]]) -> Rows:
    """Features of files that nothing but the reader and the method has touched."""
    samples = tuple(
        Sample(str(file), "oct", own, None, FileSource(file, None, root, not own))
        for file, own in zip(files, classes, strict=True)
    )
    return FeatureCache(1 << 28).rows("by hand", method.features, method.image_size, samples)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short federation on phantoms."""
    folder = tmp_path_factory.mktemp("tiny") / "run"
    simulate(parse_config(TINY, "tiny.yaml"), folder, PlainProgress())
    return folder


def by_hand(run: Path, name: str, support: list[dict[str, str]], drawn: Path) -> tuple[Method, SupportBank, Rows]:
    """The method of the last checkpoint, its bank of the manifest's train rows, and the features of the test images."""
    config = parse_config((run / "config.yaml").read_text(), "config.yaml")
    built = {key: methods.build(key, block, config.seed) for key, block in config.training.items()}
    run_id = json.loads((run / "environment.json").read_text())["run_id"]
    saved = load_checkpoint(run / "checkpoints", run_id, {key: method.trainable() for key, method in built.items()})
    assert saved is not None
    method = built[name]
    method.load(saved.tensors[name])
    classes: list[tuple[str, ...]] = [() if row["label"] == "normal" else (row["label"],) for row in support]
    bank = method.fit_support(rows_by_hand(method, [drawn / x["path"] for x in support], drawn, classes), "oct")
    files = sorted((drawn / "images" / "test").iterdir())
    return method, bank, rows_by_hand(method, files, drawn, [()] * len(files))


def test_a_detector_says_what_the_method_says(call: Call, trained: Path, drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, err = call("predict", "--run", trained, "--method", "d24fad", "--support", drawn / "manifest.csv",
                           "--query", drawn / "images/test", "--out", out, "--specificity", "0.8")  # fmt: skip
    assert code == 0, err
    assert "4 abnormal support images are left out: d24fad compares with normal ones only" in err
    support = [row for row in table(drawn / "manifest.csv") if (row["split"], row["label"]) == ("train", "normal")]
    method, bank, queries = by_hand(trained, "d24fad", support, drawn)
    wanted, found = method.score(queries.features, bank), table(out / "predictions.csv")
    assert [row["file"] for row in found] == [f"{i:05}.png" for i in range(8)]
    assert [float(row["score"]) for row in found] == pytest.approx(wanted.image.tolist(), abs=1e-6)
    leave_one_out = method.support_scores(bank)
    assert leave_one_out is not None
    limit = threshold(leave_one_out, 0.8)
    assert [float(row["threshold"]) for row in found] == pytest.approx([limit.value] * 8, abs=1e-6)
    calls = ["abnormal" if score > limit.value else "normal" for score in wanted.image.tolist()]
    assert [row["decision"] for row in found] == calls
    assert f"8 images: {calls.count('abnormal')} abnormal, {calls.count('normal')} normal" in said
    for row in found:
        assert sum(float(row[f"weight_{i}"]) for i in range(1, 5)) == pytest.approx(1, abs=1e-6)
    supports = table(out / "supports.csv")
    assert [row["file"] for row in supports] == [row["path"] for row in support]
    assert [float(row["score"]) for row in supports] == pytest.approx(leave_one_out.tolist(), abs=1e-6)
    record = json.loads((out / "prediction.json").read_text())
    assert (record["round"], record["supports"], record["queries"]) == (1, 4, 8)
    assert "from 4 supports, for a specificity of 0.8" in record["threshold"]
    assert wanted.map is not None
    assert record["colour_scale"] == pytest.approx([float(wanted.map.min()), float(wanted.map.max())], abs=1e-6)
    for row in found:
        with Image.open(out / row["picture"]) as picture:
            assert picture.width > 2 * 320
    with Image.open(out / "supports.png") as sheet:
        assert sheet.width > 4 * 160


def test_categories_say_what_the_method_says(call: Call, trained: Path, drawn: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("predict", "--run", trained, "--method", "sdmad", "--support", drawn / "manifest.csv",
                 "--query", drawn / "images/test", "--out", out)  # fmt: skip
    code, _, err = call(*arguments)
    assert code == 2
    assert "sdmad reads signs of a task; name it with --task, one of" in err
    code, _, err = call(*arguments, "--task", "oct")
    assert code == 0, err
    support = [row for row in table(drawn / "manifest.csv") if row["split"] == "train"]
    method, bank, queries = by_hand(trained, "sdmad", support, drawn)
    assert isinstance(method, SdMad)
    wanted, found = method.score(queries.features, bank), table(out / "predictions.csv")
    assert wanted.categories is not None
    for place, name in enumerate(wanted.names):
        column = wanted.categories[:, place].tolist()
        assert [float(row[f"{name}: score"]) for row in found] == pytest.approx(column, abs=1e-5)
        assert all(row[f"{name}: signs"] for row in found)
        limit = float(method.thresholds(bank)[place])
        chances = method.probabilities(wanted, bank)[:, place].tolist()
        assert [float(row[f"{name}: threshold"]) for row in found] == pytest.approx([limit] * 8, abs=1e-4)
        assert [float(row[f"{name}: probability"]) for row in found] == pytest.approx(chances, abs=1e-5)
        calls = ["present" if score > limit else "absent" for score in column]
        assert [row[f"{name}: decision"] for row in found] == calls
    assert [float(row["score"]) for row in found] == pytest.approx(wanted.image.tolist(), abs=1e-5)
    for row in found:
        present = [name for name in wanted.names if row[f"{name}: decision"] == "present"]
        assert row["decision"] == ("abnormal" if present else "normal")


def test_a_category_without_support_and_a_part_that_stayed_away_are_said(
    call: Call, drawn: Path, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", local=("context",))
    own = tmp_path / "supports"
    for row in table(drawn / "manifest.csv")[:5]:
        (own / row["label"]).mkdir(parents=True, exist_ok=True)
        shutil.copy(drawn / row["path"], own / row["label"])
    names = sorted(load_signs("phantoms")["oct"].categories)
    (shown,) = {path.name for path in own.iterdir()} - {"normal"}
    code, _, err = call("predict", "--run", run, "--method", "sdmad", "--task", "oct", "--support", own,
                        "--query", drawn / "images/test/00000.png", "--out", tmp_path / "out")  # fmt: skip
    assert code == 0, err
    said = next(line for line in err.splitlines() if "no support shows" in line)
    assert sorted(name for name in names if name in said) == [name for name in names if name != shown]
    assert "context of sdmad stayed at the sites; here they are as at the start" in err


# ---- banks


def test_a_saved_bank_predicts_what_its_images_do(call: Call, run_folder: Path, drawn: Path, tmp_path: Path) -> None:
    own = tmp_path / "supports"
    own.mkdir()
    for number in range(4):
        shutil.copy(drawn / f"images/train/{number:05}.png", own / f"{number}.png")
    common = ("--run", run_folder, "--method", "d24fad")
    ask = ("predict", *common, "--query", drawn / "images/test", "--out")
    assert call(*ask, tmp_path / "direct", "--support", own)[0] == 0
    bank = tmp_path / "bank.safetensors"
    assert call("bank", "make", *common, "--support", own / "0.png", "--out", bank)[:2] == (
        0, f"{bank}: 1 supports of images\n")  # fmt: skip
    (own / "0.png").unlink()  # what is in the bank is not read again
    assert "4 supports of images, 3 of them new" in call("bank", "add", bank, "--run", run_folder, "--support", own)[1]
    assert "  3.png (normal)" in call("bank", "show", bank)[1].splitlines()
    assert call(*ask, tmp_path / "saved", "--bank", bank)[0] == 0
    for name in ("predictions.csv", "supports.csv"):
        assert_same(table(tmp_path / "saved" / name), table(tmp_path / "direct" / name))
    assert "3 supports" in call("bank", "remove", bank, "2.png")[1]
    assert "2.png" not in call("bank", "show", bank)[1]
    assert call("bank", "make", *common, "--support", own, "--out", bank)[::2] == (
        2, f"error: {bank} exists already; choose another --out, or use fed-fsad bank add\n")  # fmt: skip


# ---- what goes wrong


def test_what_cannot_be_read_is_named_and_the_rest_is_scored(
    call: Call, run_folder: Path, drawn: Path, tmp_path: Path
) -> None:
    shutil.copytree(drawn / "images/test", tmp_path / "q")
    (tmp_path / "q" / "broken.png").write_bytes(b"no image")
    code, out, err = call("predict", "--run", run_folder, "--method", "d24fad", "--support", drawn / "manifest.csv",
                          "--shots", "1", "--query", tmp_path / "q", "--out", tmp_path / "out")  # fmt: skip
    assert code == 3
    assert "warning: broken.png was not scored: " in err
    assert "threshold: none: a threshold needs the leave-one-out scores of at least two supports" in out
    found = table(tmp_path / "out" / "predictions.csv")
    assert len(found) == 8
    assert {(row["decision"], row["threshold"], row["weight_1"]) for row in found} == {("", "", "1")}
    record = json.loads((tmp_path / "out" / "prediction.json").read_text())
    assert [one["file"] for one in record["unreadable"]] == ["broken.png"]


def test_a_support_among_the_queries_is_said(call: Call, run_folder: Path, drawn: Path, tmp_path: Path) -> None:
    err = call("predict", "--run", run_folder, "--method", "d24fad", "--support", drawn / "images/train/00001.png",
               "--query", drawn / "images/train", "--out", tmp_path / "out")[2]  # fmt: skip
    assert "1 queries are supports too, e.g. 00001.png is 00001.png; their scores say little" in err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--support", "MANIFEST", "--shots", "9"], 1, "--shots asks for 9 normal supports and there are 4"),
        (["--support", "EMPTY"], 1, "give at least one support image"),
        (["--support", "MANIFEST", "--query", "EMPTY"], 1, "check the path of the query images"),
        ([], 2, "give either --support with support images or --bank with a saved bank"),
        (["--support", "MANIFEST", "--reading", "{slicse: all}"], 2, "unknown key 'reading.slicse'; did you mean"),
        (["--support", "MANIFEST", "--round", "5"], 1, "holds no round 5; choose one of 1, 2"),
        (["--support", "MANIFEST", "--run", "EMPTY"], 1, "holds no run; give --run a run directory"),
        (["--support", "MANIFEST", "--out", "FULL"], 1, "is not empty; choose another --out or remove it"),
        (["--support", "MANIFEST", "--normal", "healthy"], 1, "no support image is normal; give at least one"),
    ],
)
def test_one_sentence_for_what_a_user_can_mend_and_nothing_left_behind(
    call: Call, run_folder: Path, drawn: Path, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "own.txt").write_text("mine")
    known = {"MANIFEST": drawn / "manifest.csv", "EMPTY": tmp_path / "empty", "FULL": tmp_path / "full"}
    before = ["--run", run_folder, "--method", "d24fad", "--query", drawn / "images/test", "--out", tmp_path / "out"]
    got, _, err = call("predict", *before, *(known.get(word, word) for word in arguments))
    assert (got, said in err) == (code, True), err
    assert err.splitlines()[-1].startswith("error: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full"]
    assert (tmp_path / "full" / "own.txt").read_text() == "mine"


def test_a_failure_half_way_leaves_nothing(
    call: Call, run_folder: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fed_fsad.inference.predict.predictions_csv", full)
    code, _, err = call("predict", "--run", run_folder, "--method", "d24fad", "--support", drawn / "manifest.csv",
                        "--query", drawn / "images/test/00000.png", "--out", tmp_path / "out")  # fmt: skip
    assert code == 1
    assert "cannot be written (No space left on device); choose another --out" in err
    assert list(tmp_path.iterdir()) == []


def test_scores_that_are_no_numbers_are_an_error(call: Call, drawn: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", spoil=float("nan"))
    ask = ("predict", "--run", run, "--method", "sdmad", "--task", "oct", "--support", drawn / "manifest.csv")
    code, _, err = call(*ask, "--query", drawn / "images/test", "--out", tmp_path / "out")
    assert code == 1
    assert "a score that is not a finite number" in err
    assert not (tmp_path / "out").exists()


# ---- export


def test_export_says_what_it_cannot_do(
    call: Call, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model.onnx"
    ask = ("export", "--run", run_folder, "--out", out, "--method")
    assert "sdmad cannot be exported; only d24fad can" in call(*ask, "sdmad")[2]
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    code, _, err = call(*ask, "d24fad")
    assert code == 2
    assert "export needs onnxscript: pip install 'fed-fsad[onnx]'" in err
    out.write_bytes(b"mine")
    assert "exists already; choose another --out" in call(*ask, "d24fad")[2]
    assert out.read_bytes() == b"mine"
