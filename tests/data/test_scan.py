"""A data set read once: what is kept, skipped and refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fed_fsad.data.scan import Scan, forget_scans, scan
from fed_fsad.data.settings import FolderData
from fed_fsad.errors import DataError
from tests.conftest import MakeFolder, write_image

COUNTS = {"train/normal": 4, "train/glioma": 3, "test/normal": 2, "test/glioma": 2}


def scanned(root: Path, manifest: str | None = None, normal: tuple[str, ...] = ("normal",)) -> Scan:
    forget_scans()
    if manifest is not None:
        (root / "m.csv").write_text(manifest)
    name = None if manifest is None else Path("m.csv")
    return scan(FolderData(kind="folder", root=root, manifest=name, task="brain_mri", normal=normal))


def test_samples_carry_content_hash_task_and_label(make_folder: MakeFolder) -> None:
    root = make_folder(COUNTS)
    found = scanned(root)
    assert [sample.source.name for sample in found.train[:4]] == [f"train/glioma/{i:03}.png" for i in range(3)] + [
        "train/normal/000.png"
    ]
    assert [sample.categories for sample in found.test] == [("glioma",), ("glioma",), (), ()]
    assert {sample.task for sample in found.train} == {"brain_mri"}
    assert found.skipped == ()
    (root / "train/normal/000.png").rename(root / "train/normal/moved.png")
    moved = {sample.source.name: sample.id for sample in scanned(root).train}
    assert moved["train/normal/moved.png"] == found.train[3].id


def test_one_bad_image_among_many_is_skipped_and_listed(make_folder: MakeFolder) -> None:
    root = make_folder(COUNTS)
    whole = (root / "train/glioma/001.png").read_bytes()
    (root / "train/glioma/001.png").write_bytes(whole[: len(whole) // 2])
    found = scanned(root)
    assert len(found.train) == 6
    assert [item.name for item in found.skipped] == ["train/glioma/001.png"]
    assert "damaged" in found.skipped[0].reason
    for i in (0, 2):
        (root / f"train/glioma/{i:03}.png").write_text("bad")
    with pytest.raises(DataError, match=r"no image of 'glioma' in train can be read, e\.g\. train/glioma/000\.png: "):
        scanned(root)


def test_a_file_without_permission_stops_the_scan(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder(COUNTS)

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match="permission denied"):
        scanned(root)


def test_copies_within_a_split_are_kept_once(make_folder: MakeFolder) -> None:
    root = make_folder(COUNTS)
    shutil.copy(root / "train/normal/001.png", root / "train/normal/zz.png")
    shutil.copy(root / "test/glioma/001.png", root / "test/glioma/0.png")
    found = scanned(root)
    assert len(found.train) == 7
    assert [(item.name, item.reason) for item in found.skipped] == [
        ("test/glioma/001.png", "same image as test/glioma/0.png"),
        ("train/normal/zz.png", "same image as train/normal/001.png"),
    ]
    shutil.copy(root / "train/normal/001.png", root / "train/glioma/other.png")
    with pytest.raises(DataError, match=r"glioma/other\.png and train/normal/001\.png are the same image with diff"):
        scanned(root)


def test_a_test_image_that_is_also_in_train(make_folder: MakeFolder) -> None:
    root = make_folder(COUNTS)
    shutil.copy(root / "train/normal/001.png", root / "test/normal/x.png")
    with pytest.raises(DataError, match=r"also in train: test/normal/x\.png equals train/normal/001\.png; remove"):
        scanned(root)


def test_a_patient_in_both_splits(make_folder: MakeFolder) -> None:
    root = make_folder({"train/normal": 1, "test/normal": 2})
    rows = "path,split,label,patient\ntrain/normal/000.png,train,normal,a\ntest/normal/000.png,test,normal,{}\n"
    assert len(scanned(root, rows.format("b") + "test/normal/001.png,test,normal,\n").test) == 2
    with pytest.raises(DataError, match=r"one patient is in train and test: train/normal/000\.png and test/normal/000"):
        scanned(root, rows.format("a"))


def test_manifest_lines_listed_twice_or_without_a_file(make_folder: MakeFolder) -> None:
    root = make_folder({"train/normal": 2})
    line = "train/normal/{}.png,train,normal\n"
    found = scanned(root, "path,split,label\n" + "".join(map(line.format, ("000", "001", "001", "gone"))))
    assert [sample.source.name for sample in found.train] == ["train/normal/000.png", "train/normal/001.png"]
    assert [item.name for item in found.skipped] == ["train/normal/001.png", "train/normal/gone.png"]
    assert found.skipped[0].reason == "listed twice"
    assert "no such file" in found.skipped[1].reason


def test_nothing_is_normal(make_folder: MakeFolder) -> None:
    with pytest.raises(DataError, match=r"no image in .* is normal; name the normal class of glioma, normal as"):
        scanned(make_folder(COUNTS), normal=("Normal",))


def test_masks_are_checked_before_anything_runs(make_folder: MakeFolder) -> None:
    root = make_folder(COUNTS)
    mask = root / "masks/train/glioma/000.png"
    write_image(mask, 1, size=(16, 12))
    source = next(s.source for s in scanned(root).train if s.source.name == "train/glioma/000.png")
    found = source.mask(12)
    assert found is not None
    assert found.any()
    write_image(mask, 1, size=(12, 16))
    with pytest.raises(DataError, match=r"mask masks/train/glioma/000\.png is 12 x 16 pixels but its image"):
        scanned(root)
    mask.write_text("bad")
    assert [item.name for item in scanned(root).skipped] == ["train/glioma/000.png"]
    mask.rename(mask.with_suffix(".jpg"))
    with pytest.raises(DataError, match="not lossless"):
        scanned(root)
    mask.with_suffix(".jpg").unlink()
    (root / "masks/train/normal").mkdir()
    Image.fromarray(np.zeros((12, 16), np.uint8)).save(root / "masks/train/normal/000.png")
    assert not scanned(root).skipped
    write_image(root / "masks/train/normal/000.png", 1)
    with pytest.raises(DataError, match=r"normal/000\.png is called normal but masks/train/normal/000\.png marks"):
        scanned(root)


def test_files_are_read_once_per_process(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder(COUNTS)
    first = scanned(root)

    def never(_: Path) -> bytes:
        raise AssertionError("read again")

    monkeypatch.setattr(Path, "read_bytes", never)
    assert scan(FolderData(kind="folder", root=root, task="brain_mri")) is first
