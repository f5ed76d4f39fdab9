"""Supports and queries on disk: who is what, and what is said of what cannot serve."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fed_fsad.data.manifest import list_manifest
from fed_fsad.data.settings import FolderData, Reading
from fed_fsad.errors import DataError
from fed_fsad.inference.images import Kind, choose, find_queries, find_supports
from tests.conftest import write_image, write_set

KIND = Kind("oct", ("normal", "healthy"), Reading())


def quiet(what: str, done: int, of: int) -> None:
    """Progress that nobody watches."""


def test_a_folder_of_images_is_normal_and_class_folders_say_what_they_are(tmp_path: Path) -> None:
    loose = write_set(tmp_path / "loose", {".": 3})
    assert [(x.source.name, x.categories, x.task) for x in find_supports(loose, KIND, quiet)] == [
        (f"{i:03}.png", (), "oct") for i in range(3)
    ]
    classes = write_set(tmp_path / "classes", {"healthy": 1, "drusen": 2, "normal": 1})
    assert [x.categories for x in find_supports(classes, KIND, quiet)] == [("drusen",), ("drusen",), (), ()]


def test_a_manifest_gives_its_train_rows(drawn: Path) -> None:
    found = find_supports(drawn / "manifest.csv", KIND, quiet)
    listed = list_manifest(FolderData(kind="folder", root=drawn, manifest=Path("manifest.csv")))
    wanted = {entry.name: entry.categories for entry in listed if entry.split == "train"}
    assert {sample.source.name: sample.categories for sample in found} == wanted
    assert len(wanted) == 8


def test_one_support_twice_is_one_and_of_two_classes_is_an_error(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", {"normal": 2})
    shutil.copy(root / "normal/000.png", root / "normal/copy.png")
    assert [x.source.name for x in find_supports(root, KIND, quiet)] == ["normal/000.png", "normal/001.png"]
    (root / "drusen").mkdir()
    shutil.copy(root / "normal/000.png", root / "drusen/copy.png")
    with pytest.raises(DataError, match=r"drusen/copy\.png and normal/000\.png are one image of two classes; keep one"):
        find_supports(root, KIND, quiet)


def deep(root: Path) -> None:
    write_image(root / "normal/more/000.png", 1)


def mixed(root: Path) -> None:
    write_image(root / "000.png", 1)
    write_image(root / "normal/001.png", 2)


def damaged(root: Path) -> None:
    write_image(root / "000.png", 1)
    (root / "001.png").write_bytes(b"no image")


def empty(root: Path) -> None:
    (root / "notes.txt").write_text("nothing to see")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (deep, "lies too deep; put supports into"),
        (mixed, "000.png lies in no class folder but"),
        (damaged, "support 001.png cannot be read: .*; replace or remove it"),
        (empty, "holds no PNG, JPEG, TIFF, DICOM or NIfTI image; give at least one support image"),
        (lambda root: root.rmdir(), "does not exist; check the path"),
    ],
)
def test_supports_that_cannot_serve(tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    root = tmp_path / "set"
    root.mkdir()
    spoil(root)
    with pytest.raises(DataError, match=said):
        find_supports(root, KIND, quiet)


def test_queries_lie_anywhere_below_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    root = write_set(tmp_path / "q", {"b": 1, "a/deep": 1, ".hidden": 1, ".": 1})
    (root / "a" / "broken.png").write_bytes(b"no image")
    (root / "readme.txt").write_text("passed over")
    seen: list[tuple[str, int, int]] = []
    samples, skipped = find_queries(root, KIND, lambda *step: seen.append(step))
    assert [sample.source.name for sample in samples] == ["000.png", "a/deep/000.png", "b/000.png"]
    assert [one.name for one in skipped] == ["a/broken.png"]
    assert seen[-1] == ("reading queries", 4, 4)
    (one,), _ = find_queries(root / "b" / "000.png", KIND, quiet)
    assert one.id == samples[2].id


def test_a_file_of_many_images_gives_the_parts_that_are_asked_for(tmp_path: Path) -> None:
    files = pytest.importorskip("tests.data.files")
    values = np.random.default_rng(0).integers(0, 4096, (3, 16, 16)).astype(np.uint16)
    files.dicom(tmp_path / "loop.dcm", values)
    files.nifti(tmp_path / "scan.nii.gz", values.astype(np.int16).transpose(1, 2, 0))
    samples, skipped = find_queries(tmp_path, Kind("oct", ("normal",), Reading(slices="all")), quiet)
    assert skipped == []
    assert [x.source.name for x in samples] == [
        *(f"loop.dcm#frame-{i:03}" for i in range(3)),
        *(f"scan.nii.gz#axial-{i:03}" for i in range(3)),
    ]
    assert len({x.id for x in samples}) == 6


def test_shots_are_drawn_by_the_seed_and_are_the_same_whatever_the_order(tmp_path: Path) -> None:
    root = write_set(tmp_path / "set", {"normal": 5, "drusen": 3, "fluid": 1})
    supports = find_supports(root, KIND, quiet)
    drawn = choose(supports, 2, 0, "categories")
    assert sorted(x.categories for x in drawn) == [(), (), ("drusen",), ("drusen",), ("fluid",)]
    assert [x.id for x in choose(supports[::-1], 2, 0, "categories")] == [x.id for x in drawn]
    normals = choose(supports, 2, 0, "detection")
    assert [x.id for x in normals] == [x.id for x in drawn[:2]]
    others = {tuple(x.id for x in choose(supports, 2, seed, "detection")) for seed in range(8)}
    assert len(others) > 1
    assert len(choose(supports, None, 0, "detection")) == 5


def test_too_few_normal_supports(tmp_path: Path) -> None:
    supports = find_supports(write_set(tmp_path / "set", {"normal": 2, "drusen": 3}), KIND, quiet)
    with pytest.raises(DataError, match="--shots asks for 3 normal supports and there are 2; lower it or add images"):
        choose(supports, 3, 0, "detection")
    with pytest.raises(DataError, match="no support image is normal; give at least one"):
        choose([x for x in supports if x.categories], None, 0, "categories")
