"""A data set on disk, every file opened once: what can be used, what was skipped, what must be mended first."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from fed_fsad.data.adapters import listing
from fed_fsad.data.entries import SPLITS, Entry, Split
from fed_fsad.data.images import FileSource, check_lossless, marks_of, open_part, part_name
from fed_fsad.data.parallel import ordered
from fed_fsad.data.readers import RASTER
from fed_fsad.data.readers.picture import WHOLE, Opened, Picture, Undecodable
from fed_fsad.data.samples import Sample, of_file
from fed_fsad.data.settings import FolderData, Reading
from fed_fsad.data.tables import pseudonym
from fed_fsad.errors import DataError

OnFile = Callable[[int, int], None]
"""Called with (files read, files)."""


@dataclass(frozen=True)
class Skipped:
    """A file that was left out, by its path relative to the root, and why. It is shown to the site, never sent."""

    name: str
    reason: str


@dataclass(frozen=True)
class Contents:
    """What a file holds. digest: SHA-256 of its bytes. patient: the bare id in its header, which is hashed at once.

    parts: the chosen images, each with whether its mask marks anything; None without a mask.
    """

    digest: str
    patient: str | None
    parts: tuple[tuple[str, bool | None], ...]


@dataclass(frozen=True)
class Scan:
    """The usable images of a data set, in the order of their names, and the files left out."""

    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    skipped: tuple[Skipped, ...]


def scan(data: FolderData, progress: OnFile | None = None) -> Scan:
    """List, read and check a data set; done once per process for equal settings.

    Unreadable files and copies of the same content are skipped and listed. In a file of several images with a mask,
    those that the mask does not touch are normal. Raises DataError when nothing is normal, a class has only unreadable
    images, a mask contradicts its image, one image has two labels, or an image or a patient is in both train and test.
    """
    if not (place := _place(data)):
        place.append(_scan(data, progress))
    return place[0]


@lru_cache(maxsize=32)
def _place(data: FolderData) -> list[Scan]:
    """Where the scan of these settings is kept; empty at first."""
    return []


forget_scans = _place.cache_clear


def _scan(data: FolderData, progress: OnFile | None) -> Scan:
    listed = listing(data)
    entries = sorted(listed.entries, key=lambda entry: (entry.name, entry.part or ""))
    _check_normal([() if entry.mask else entry.categories for entry in entries], data)
    opened = list(_read_all(entries, data, progress))
    key = hashlib.sha256("".join(sorted(found.digest for found in opened if isinstance(found, Contents))).encode())
    pairs = [
        (entry, found if isinstance(found, Skipped) else list(_samples(entry, found, data, listed.task, key.digest())))
        for entry, found in zip(entries, opened, strict=True)
    ]
    _check_classes(pairs)
    kept, skipped = {}, [found for found in opened if isinstance(found, Skipped)]
    for split in SPLITS:
        own = [found for entry, found in pairs if entry.split == split and not isinstance(found, Skipped)]
        samples = [sample for found in own for sample in found]
        kept[split], copies = _without_copies(samples)
        skipped += copies
    _check_normal([sample.categories for split in SPLITS for sample in kept[split]], data)
    _check_apart(kept["train"], kept["test"])
    return Scan(tuple(kept["train"]), tuple(kept["test"]), tuple(sorted(skipped, key=lambda item: item.name)))


def _check_normal(images: Sequence[tuple[str, ...]], data: FolderData) -> None:
    if images and all(images):
        found = ", ".join(sorted({name for categories in images for name in categories}))
        raise DataError(f"no image in {data.root} is normal; name the normal class of {found} as `normal`")


def _read_all(entries: Sequence[Entry], data: FolderData, progress: OnFile | None) -> Iterator[Contents | Skipped]:
    heavy = data.reading.tiles is not None or not all(entry.name.lower().endswith(RASTER) for entry in entries)
    work = partial(examine, root=data.root, reading=data.reading)
    for done, found in enumerate(ordered(work, entries, heavy), start=1):
        if progress is not None:
            progress(done, len(entries))
        yield found


def examine(entry: Entry, root: Path, reading: Reading) -> Contents | Skipped:
    """Open a file and its mask and decode every image that is chosen of it.

    Raises DataError for what must not be skipped: a mask that contradicts image or label, a missing permission.
    """
    try:
        opened = open_part(entry.path, reading, entry.part)
        mask, mask_name = None, ""
        if entry.mask is not None:
            mask_name = entry.mask.relative_to(root).as_posix()
            check_lossless(mask_name)
            mask = open_part(entry.mask, reading, entry.part)
        parts = []
        for part, picture in _chosen(opened, entry.part):
            names = part_name(entry.name, part), mask_name
            marked = None if mask is None else bool(marks_of(opened, picture, mask, part, names).any())
            if marked and not entry.categories:
                raise DataError(f"{names[0]} is called normal but {mask_name} marks pixels; correct label or mask")
            parts.append((part, marked))
        if not parts:
            raise Undecodable("none of its slices, frames or tiles shows anything; choose others in `reading`")
        return Contents(opened.digest(), opened.patient, tuple(parts))
    except Undecodable as error:
        return Skipped(part_name(entry.name, entry.part or WHOLE), str(error))


def _chosen(opened: Opened, part: str | None) -> Iterator[tuple[str, Picture]]:
    """The part that the entry names, or those that the settings choose without the ones of a single value."""
    if part is not None:
        yield part, opened.picture(part)
        return
    for name, picture in opened.pictures():
        if name == WHOLE or picture.pixels.min() < picture.pixels.max():
            yield name, picture


def _samples(entry: Entry, found: Contents, data: FolderData, task: str, key: bytes) -> Iterator[Sample]:
    for part, marked in found.parts:
        categories = () if part and marked is False else entry.categories
        patient = entry.patient or (pseudonym(key, found.patient) if found.patient else None)
        yield Sample(
            id=f"{found.digest}-{part}" if part else found.digest,
            task=task,
            categories=categories,
            patient=patient or (of_file(found.digest) if part else None),
            source=FileSource(entry.path, entry.mask, data.root, not categories, part, data.reading),
            look=data.reading.look,
            columns=entry.columns,
        )


def _check_classes(pairs: Iterable[tuple[Entry, list[Sample] | Skipped]]) -> None:
    good: defaultdict[tuple[Split, str], int] = defaultdict(int)
    bad: dict[tuple[Split, str], str] = {}
    for entry, found in pairs:
        for name in entry.categories or ("normal images",):
            if isinstance(found, Skipped):
                bad.setdefault((entry.split, name), f"can be read, e.g. {found.name}: {found.reason}")
            elif any(sample.categories == entry.categories for sample in found):
                good[entry.split, name] += 1
            else:
                reason = f"is marked, e.g. in {entry.name}; choose other slices or tiles in `reading`"
                bad.setdefault((entry.split, name), reason)
    for (split, name), reason in bad.items():
        if not good[split, name]:
            raise DataError(f"no image of {name!r} in {split} {reason}")


def _without_copies(samples: Sequence[Sample]) -> tuple[list[Sample], list[Skipped]]:
    first: dict[str, Sample] = {}
    copies: dict[str, str] = {}
    for sample in samples:
        kept = first.setdefault(sample.id, sample)
        if kept is sample:
            continue
        if kept.categories != sample.categories:
            raise DataError(
                f"{kept.source.name} and {sample.source.name} are the same image with different labels; "
                "keep one, list both categories in a manifest, or let fed-fsad data split leave both out"
            )
        names = kept.source.name, sample.source.name
        why = "listed twice" if names[0] == names[1] else f"same image as {names[0]}"
        copies.setdefault(names[1].partition("#")[0], why)
    return list(first.values()), [Skipped(name, reason) for name, reason in copies.items()]


def _check_apart(train: Sequence[Sample], test: Sequence[Sample]) -> None:
    by_id = {sample.id: sample for sample in train}
    by_patient = {sample.patient: sample for sample in train if sample.patient is not None}
    for sample in test:
        if sample.id in by_id:
            raise DataError(
                f"a test image is also in train: {sample.source.name} equals {by_id[sample.id].source.name}; "
                "remove one, or let fed-fsad data split --keep-test do it"
            )
        if sample.patient in by_patient:
            who = "patient" if sample.patient_known else "file"
            mend = _PLACEHOLDERS if sample.patient_known and _medical(sample) else ""
            raise DataError(
                f"one {who} is in train and test: {by_patient[sample.patient].source.name} and "
                f"{sample.source.name}; keep all images of a {who} in one split{mend}"
            )


_PLACEHOLDERS = ", or set reading.patients: unknown if the ids in the files are placeholders"


def _medical(sample: Sample) -> bool:
    return isinstance(sample.source, FileSource) and sample.source.heavy
