"""Images on disk for a prediction: supports with their classes, queries without any."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from fed_fsad.data.entries import Entry, categories_of
from fed_fsad.data.folder import is_image
from fed_fsad.data.images import FileSource
from fed_fsad.data.manifest import list_manifest
from fed_fsad.data.parallel import ordered
from fed_fsad.data.readers import RASTER
from fed_fsad.data.samples import Sample
from fed_fsad.data.scan import Contents, Skipped, examine
from fed_fsad.data.settings import FolderData, Reading
from fed_fsad.errors import DataError
from fed_fsad.evaluation.bed import draw_support

Progress = Callable[[str, int, int], None]
"""Called with (what is done, how many are, of how many)."""
KINDS = "PNG, JPEG, TIFF, DICOM or NIfTI image"


@dataclass(frozen=True)
class Kind:
    """What the images show, which class names mean normal, and how files become images."""

    task: str
    normal: tuple[str, ...]
    reading: Reading


def find_queries(path: Path, kind: Kind, progress: Progress) -> tuple[list[Sample], list[Skipped]]:
    """Every image in a folder and the folders inside it, by name, or of one file; and what cannot be read, with why.

    Raises DataError when there is no image at all.
    """
    if path.is_file():
        root, files = path.parent, [path]
    else:
        root, files = path, [file for file in _below(path) if is_image(file)]
    if not files:
        raise DataError(f"{path} holds no {KINDS}; check the path of the query images")
    entries = [Entry(file.relative_to(root).as_posix(), file, "test", ()) for file in files]
    return _opened(entries, root, kind, progress, "reading queries")


def find_supports(path: Path, kind: Kind, progress: Progress) -> list[Sample]:
    """The supports of a folder (images, all normal, or one folder per class), of a CSV manifest (its train rows), or of
    one image; every image once, by name.

    Raises DataError when there is none, or one that cannot be read.
    """
    root = path if path.is_dir() else path.parent
    entries = _listed(path, kind)
    if not entries:
        raise DataError(f"{path} holds no {KINDS}; give at least one support image")
    samples, skipped = _opened(entries, root, kind, progress, "reading supports")
    if skipped:
        raise DataError(f"support {skipped[0].name} cannot be read: {skipped[0].reason}; replace or remove it")
    first: dict[str, Sample] = {}
    for sample in samples:
        other = first.setdefault(sample.id, sample)
        if other.categories != sample.categories:
            raise DataError(f"{other.source.name} and {sample.source.name} are one image of two classes; keep one")
    return list(first.values())


def choose(supports: Sequence[Sample], shots: int | None, seed: int, protocol: str) -> list[Sample]:
    """`shots` normal supports drawn by the seed, or all; a method of categories takes as many of each category too.

    Abnormal supports are left out for a detector, which compares with normal images only. Raises DataError when there
    are fewer normal ones than asked for, or none.
    """
    categories = protocol == "categories"
    usable = [sample for sample in supports if categories or sample.is_normal]
    normals = sum(sample.is_normal for sample in usable)
    if not normals:
        raise DataError("no support image is normal; give at least one, in a class folder called normal or without any")
    if shots is None:
        return usable
    if shots > normals:
        raise DataError(f"--shots asks for {shots} normal supports and there are {normals}; lower it or add images")
    return draw_support(usable, usable[0].task, shots, 0, seed, categories)


def _listed(path: Path, kind: Kind) -> list[Entry]:
    if path.suffix.lower() == ".csv":
        data = FolderData(kind="folder", root=path.parent, manifest=Path(path.name), normal=kind.normal)
        return sorted({e for e in list_manifest(data) if e.split == "train"}, key=lambda e: (e.name, e.part or ""))
    if path.is_file():
        return [Entry(path.name, path, "train", ())]
    files = [file for file in _below(path) if is_image(file)]
    loose = [file for file in files if file.parent == path]
    if loose and len(loose) < len(files):
        other = next(file for file in files if file.parent != path)
        raise DataError(f"{loose[0]} lies in no class folder but {other} does; put all into class folders or none")
    names = [file.relative_to(path) for file in files]
    if deep := [name for name in names if len(name.parts) > 2]:
        raise DataError(f"{path / deep[0]} lies too deep; put supports into {path} or {path}/CLASS")
    classes = [() if len(name.parts) == 1 else categories_of(name.parts[0], kind.normal) for name in names]
    return [
        Entry(name.as_posix(), file, "train", categories)
        for name, file, categories in zip(names, files, classes, strict=True)
    ]


def _below(folder: Path) -> list[Path]:
    """Visible files of a folder and all folders inside it, by name. Raises DataError when it is no folder."""
    if not folder.is_dir():
        raise DataError(f"{folder} does not exist; check the path")
    files = (file for file in folder.rglob("*") if file.is_file())
    shown = {file.relative_to(folder): file for file in files}
    return [shown[name] for name in sorted(shown) if not any(part.startswith((".", "__MACOSX")) for part in name.parts)]


def _opened(
    entries: Sequence[Entry], root: Path, kind: Kind, progress: Progress, what: str
) -> tuple[list[Sample], list[Skipped]]:
    heavy = kind.reading.tiles is not None or not all(entry.name.lower().endswith(RASTER) for entry in entries)
    work = partial(_look, root=root, reading=kind.reading)
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    for done, (entry, found) in enumerate(zip(entries, ordered(work, entries, heavy), strict=True), start=1):
        if isinstance(found, Skipped):
            skipped.append(found)
        else:
            samples += _samples(entry, found, root, kind)
        progress(what, done, len(entries))
    return samples, skipped


def _look(entry: Entry, root: Path, reading: Reading) -> Contents | Skipped:
    """What a file holds; whatever keeps it from being read is a reason to leave it out, a missing permission too."""
    try:
        return examine(replace(entry, mask=None), root, reading)
    except DataError as error:
        return Skipped(entry.name, str(error))


def _samples(entry: Entry, found: Contents, root: Path, kind: Kind) -> Iterator[Sample]:
    for part, _ in found.parts:
        source = FileSource(entry.path, None, root, not entry.categories, part, kind.reading)
        digest = f"{found.digest}-{part}" if part else found.digest
        yield Sample(digest, kind.task, entry.categories, None, source, kind.reading.look)
