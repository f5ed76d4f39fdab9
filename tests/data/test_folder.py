"""The folder layout: which files count, what they are called, and layouts that are refused."""

from pathlib import Path

import pytest

from fed_fsad.data.entries import Entry
from fed_fsad.data.folder import list_folder
from fed_fsad.data.settings import FolderData
from fed_fsad.errors import DataError
from tests.conftest import MakeFolder, write_image


def listed(root: Path, normal: tuple[str, ...] = ("normal",)) -> list[Entry]:
    return list_folder(FolderData(kind="folder", root=root, task="oct", normal=normal))


def test_the_label_is_the_class_folders_name_only(tmp_path: Path) -> None:
    root = tmp_path / "good" / "train" / "very good set"
    for name in ("good", "Ungood", "not good", "GOOD", "goodish"):
        write_image(root / "train" / name / "good.png", 1)
    found = {entry.path.parent.name: entry.categories for entry in listed(root, ("good",))}
    assert found.pop("good") == ()
    assert found == {name: (name,) for name in ("Ungood", "not good", "GOOD", "goodish")}


def test_splits_names_and_several_normal_classes(make_folder: MakeFolder) -> None:
    root = make_folder({"train/normal": 2, "train/healthy": 1, "test/drusen": 1})
    entries = {entry.name: (entry.split, entry.categories) for entry in listed(root, ("normal", "healthy"))}
    assert entries == {
        "train/normal/000.png": ("train", ()),
        "train/normal/001.png": ("train", ()),
        "train/healthy/000.png": ("train", ()),
        "test/drusen/000.png": ("test", ("drusen",)),
    }


def test_other_files_are_passed_over(make_folder: MakeFolder) -> None:
    root = make_folder({"train/normal": 2})
    for name in (".DS_Store", "Thumbs.db", "LICENSE", "._000.png", ".hidden/x.png", "../Thumbs.db", "../.git/x.png"):
        path = root / "train/normal" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    assert len(listed(root)) == 2


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpeg", ".JPG", ".tif", ".TIFF"])
def test_suffixes(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "train/normal" / f"a{suffix}"
    path.parent.mkdir(parents=True)
    path.touch()
    assert [entry.path for entry in listed(tmp_path)] == [path]


def test_masks_lie_in_a_tree_of_their_own(make_folder: MakeFolder) -> None:
    root = make_folder({"train/normal": 1, "train/glioma": 2, "test/glioma": 1})
    write_image(root / "masks/train/glioma/001.png", 1)
    assert {entry.name: entry.mask for entry in listed(root) if entry.mask} == {
        "train/glioma/001.png": root / "masks/train/glioma/001.png"
    }
    write_image(root / "masks/train/glioma/001.tif", 1)
    with pytest.raises(DataError, match="masks of one image"):
        listed(root)
    (root / "masks/train/glioma/001.tif").rename(root / "masks/train/glioma/001_mask.tif")
    with pytest.raises(DataError, match=r"001_mask\.tif belongs to no image"):
        listed(root)


def test_layouts_that_are_refused(make_folder: MakeFolder, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder; correct"):
        listed(tmp_path / "gone")
    with pytest.raises(DataError, match="neither a train nor a test folder"):
        listed(tmp_path)
    root = make_folder({"train/normal": 1})
    (root / "test").mkdir()
    with pytest.raises(DataError, match="has no class folders"):
        listed(root)
    (root / "test" / "glioma").mkdir()
    (root / "test" / "glioma" / "LICENSE").touch()
    with pytest.raises(DataError, match="glioma holds no PNG, JPEG, TIFF, DICOM or NIfTI image; fill it or remove it"):
        listed(root)
    write_image(root / "test/glioma/patient1/a.png", 1)
    with pytest.raises(DataError, match="patient1 is a folder inside a class"):
        listed(root)
    write_image(root / "train/loose.png", 1)
    with pytest.raises(DataError, match=r"loose\.png lies in no class folder"):
        listed(root)


def test_a_folder_without_permission(make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_folder({"train/normal": 1})

    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match="permission denied"):
        listed(root)
