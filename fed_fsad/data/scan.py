"""A data set on disk, every file opened once: what can be used, what was skipped, what must be mended first."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fed_fsad.data.decoding import Undecodable, decode
from fed_fsad.data.entries import SPLITS, Entry, Split
from fed_fsad.data.folder import list_folder
from fed_fsad.data.images import FileSource, check_lossless, check_mask, read_file
from fed_fsad.data.manifest import list_manifest
from fed_fsad.data.samples import Sample
from fed_fsad.data.settings import FolderData
from fed_fsad.errors import DataError

READERS = 4
"""Files decoded at once: enough to keep a disk busy, few enough for the memory that large images take."""


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, by its path relative to the root, and why. It is shown to the site, never sent."""

    name: str
    reason: str


@dataclass(frozen=True)
class Scan:
    """The usable images of a data set, in the order of their names, and the files left out."""

    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    skipped: tuple[Skipped, ...]


@lru_cache(maxsize=32)
def scan(data: FolderData) -> Scan:
    """List, read and check a data set; done once per process for equal settings.

    Unreadable files and copies of the same content are skipped and listed. Raises DataError when nothing is called
    normal, a class has only unreadable images, a mask contradicts its image, one image has two labels, or an image
    or a patient is in both train and test.
    """
    entries = sorted(list_folder(data) if data.manifest is None else list_manifest(data), key=lambda entry: entry.name)
    if all(entry.categories for entry in entries):
        found = sorted({name for entry in entries for name in entry.categories})
        raise DataError(f"no image in {data.root} is normal; name the normal class of {', '.join(found)} as `normal`")
    with ThreadPoolExecutor(max_workers=READERS) as threads:
        opened = list(threads.map(lambda entry: _open(entry, data.root, data.task), entries))
    pairs = list(zip(entries, opened, strict=True))
    _check_classes(pairs)
    kept, skipped = {}, [result for result in opened if isinstance(result, Skipped)]
    for split in SPLITS:
        samples = [result for entry, result in pairs if isinstance(result, Sample) and entry.split == split]
        kept[split], copies = _without_copies(samples)
        skipped += copies
    _check_apart(kept["train"], kept["test"])
    return Scan(tuple(kept["train"]), tuple(kept["test"]), tuple(sorted(skipped, key=lambda item: item.name)))


def _open(entry: Entry, root: Path, task: str) -> Sample | Skipped:
    try:
        data = read_file(entry.path)
        pixels = decode(data)
        if entry.mask is not None:
            mask_name = entry.mask.relative_to(root).as_posix()
            check_lossless(mask_name)
            mask = decode(read_file(entry.mask))
            check_mask(pixels, mask, entry.name, mask_name)
            if not entry.categories and mask.any():
                raise DataError(f"{entry.name} is called normal but {mask_name} marks pixels; correct label or mask")
    except Undecodable as error:
        return Skipped(entry.name, str(error))
    source = FileSource(entry.path, entry.mask, root, normal=not entry.categories)
    return Sample(hashlib.sha256(data).hexdigest(), task, entry.categories, entry.patient, source)


def _check_classes(pairs: Sequence[tuple[Entry, Sample | Skipped]]) -> None:
    good: defaultdict[tuple[Split, str], int] = defaultdict(int)
    bad: dict[tuple[Split, str], Skipped] = {}
    for entry, result in pairs:
        for name in entry.categories or ("normal images",):
            if isinstance(result, Skipped):
                bad.setdefault((entry.split, name), result)
            else:
                good[entry.split, name] += 1
    for (split, name), first in bad.items():
        if not good[split, name]:
            raise DataError(f"no image of {name!r} in {split} can be read, e.g. {first.name}: {first.reason}")


def _without_copies(samples: Sequence[Sample]) -> tuple[list[Sample], list[Skipped]]:
    first: dict[str, Sample] = {}
    copies = []
    for sample in samples:
        kept = first.setdefault(sample.id, sample)
        if kept is sample:
            continue
        if kept.categories != sample.categories:
            raise DataError(
                f"{kept.source.name} and {sample.source.name} are the same image with different labels; "
                "keep one, or list both categories in a manifest"
            )
        names = kept.source.name, sample.source.name
        copies.append(Skipped(names[1], "listed twice" if names[0] == names[1] else f"same image as {names[0]}"))
    return list(first.values()), copies


def _check_apart(train: Sequence[Sample], test: Sequence[Sample]) -> None:
    by_id = {sample.id: sample for sample in train}
    by_patient = {sample.patient: sample for sample in train if sample.patient is not None}
    for sample in test:
        if sample.id in by_id:
            raise DataError(
                f"a test image is also in train: {sample.source.name} equals {by_id[sample.id].source.name}; remove one"
            )
        if sample.patient in by_patient:
            raise DataError(
                f"one patient is in train and test: {by_patient[sample.patient].source.name} and "
                f"{sample.source.name}; keep all images of a patient in one split"
            )
