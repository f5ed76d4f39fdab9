"""The folder layout: `{train,test}/{class}/*`, masks in `masks/{split}/{class}/{stem}.png` or of another kind."""

from pathlib import Path

from fed_fsad.data.entries import SPLITS, Entry, Split, categories_of
from fed_fsad.data.readers import SUFFIXES, bare_name, is_dicom
from fed_fsad.data.readers.files import denied, first_bytes
from fed_fsad.data.readers.picture import Undecodable
from fed_fsad.data.settings import FolderData
from fed_fsad.errors import DataError


def list_folder(data: FolderData) -> list[Entry]:
    """The images under `data.root`; the label is the class folder's name and no other part of the path.

    Hidden files and files of other types are passed over. Raises DataError for a root without train/ or test/, an
    image outside a class folder, an empty class folder, a folder inside a class folder, two masks of one image or a
    mask of none.
    """
    inside = {child.name for child in _visible(data.root)}
    splits = [split for split in SPLITS if split in inside]
    if not splits:
        raise DataError(
            f"{data.root} has neither a train nor a test folder; put images into train/CLASS and test/CLASS"
        )
    return [entry for split in splits for entry in _list_split(data, split)]


def _list_split(data: FolderData, split: Split) -> list[Entry]:
    folder = data.root / split
    classes = []
    for child in _visible(folder):
        if child.is_dir():
            classes.append(child)
        elif is_image(child):
            raise DataError(f"{child} lies in no class folder; move it into {folder}/CLASS")
    if not classes:
        raise DataError(f"{folder} has no class folders; put images into {folder}/CLASS")
    return [entry for child in classes for entry in _list_class(data, split, child)]


def _list_class(data: FolderData, split: Split, folder: Path) -> list[Entry]:
    inside = _visible(folder)
    if below := [child for child in inside if child.is_dir()]:
        raise DataError(f"{below[0]} is a folder inside a class; put images right into {folder} or use a manifest")
    images = [child for child in inside if is_image(child)]
    if not images:
        raise DataError(f"class folder {folder} holds no PNG, JPEG, TIFF, DICOM or NIfTI image; fill it or remove it")
    masks = _masks(data.root / "masks" / split / folder.name)
    if orphans := sorted(masks.keys() - {bare_name(path.name) for path in images}):
        raise DataError(f"mask {masks[orphans[0]]} belongs to no image; give it the name of an image in {folder}")
    categories = categories_of(folder.name, data.normal)
    return [
        Entry(path.relative_to(data.root).as_posix(), path, split, categories, masks.get(bare_name(path.name)))
        for path in images
    ]


def _masks(folder: Path) -> dict[str, Path]:
    masks: dict[str, Path] = {}
    for path in _visible(folder) if folder.is_dir() else []:
        if not is_image(path):
            continue
        stem = bare_name(path.name)
        if stem in masks:
            raise DataError(f"{path} and {masks[stem]} are masks of one image; keep one of them")
        masks[stem] = path
    return masks


def is_image(path: Path) -> bool:
    """By its suffix, or DICOM by its content: hospitals' files often have none."""
    if path.name.lower().endswith(SUFFIXES):
        return True
    try:
        return path.is_file() and is_dicom(first_bytes(path))
    except Undecodable:
        return False


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(child for child in folder.iterdir() if not child.name.startswith((".", "__MACOSX")))
    except PermissionError as error:
        raise denied(folder) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(f"{folder} is no folder; correct data.root") from error
