"""One file of a data set as a check sees it: what can be said of it without comparing it to others."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import imagehash
import numpy as np
from PIL import Image as Pillow

from fed_fsad.data.check.header import identifies
from fed_fsad.data.entries import Entry
from fed_fsad.data.images import check_lossless, marks_of, part_name, to_unit
from fed_fsad.data.parallel import ordered
from fed_fsad.data.readers import RASTER, open_file
from fed_fsad.data.readers.picture import Opened, Picture, Undecodable, limits_of
from fed_fsad.data.settings import FolderData
from fed_fsad.data.tables import pseudonym
from fed_fsad.errors import DataError

HASH_SIDE = 16
"""A perceptual hash of 16 x 16 bits: with the usual 8 x 8, different chest X-rays look like copies."""
HASHED_SIDE = 64
KEY = secrets.token_bytes(32)
"""Header ids are compared under a key that dies with the process."""


@dataclass(frozen=True)
class Look:
    """One image (a file, or one part of it), or one file that cannot serve.

    problem: why it cannot, with the remedy; the rest then means nothing. severity: warning when a run leaves the file
    out, error when it stops there. id: equal for equal content. size: width, height. deep: more than 8 bits. limits:
    the values shown as black and white. unmarked: its mask marks nothing. private: a DICOM header that tells who it
    is. hash: the perceptual hash, 32 bytes.
    """

    entry: Entry
    part: str = ""
    problem: str | None = None
    severity: Literal["error", "warning"] = "warning"
    id: str = ""
    size: tuple[int, int] = (0, 0)
    deep: bool = False
    limits: tuple[float, float] = (0.0, 0.0)
    unmarked: bool = False
    private: bool = False
    patient: str | None = None
    hash: bytes = bytes(HASH_SIDE**2 // 8)

    @property
    def name(self) -> str:
        """The path relative to the root, and the part of the file if it has several."""
        return part_name(self.entry.name, self.part)

    @property
    def categories(self) -> tuple[str, ...]:
        """Those of its file; a part that the file's mask does not touch is normal."""
        return () if self.part and self.unmarked else self.entry.categories


def look_at(data: FolderData, entries: Sequence[Entry], progress: Callable[[int, int], None]) -> Iterator[Look]:
    """Every image of the entries, by name; progress is called with (files done, of how many)."""
    tasks = sorted(entries, key=lambda entry: (entry.name, entry.part or ""))
    heavy = data.reading.tiles is not None or not all(entry.name.lower().endswith(RASTER) for entry in tasks)
    for done, found in enumerate(ordered(partial(_look, data=data, key=KEY), tasks, heavy), start=1):
        progress(done, len(tasks))
        yield from found


def _look(entry: Entry, data: FolderData, key: bytes) -> list[Look]:
    try:
        opened = open_file(entry.path, data.reading)
        patient = entry.patient or (pseudonym(key, opened.patient) if opened.patient else None)
        file = Look(entry, id=opened.digest(), patient=patient, private=identifies(entry.path))
        pictures = opened.pictures() if entry.part is None else [(entry.part, opened.picture(entry.part))]
        return [_seen(file, data, opened, part, picture) for part, picture in pictures]
    except Undecodable as error:
        return [Look(entry, problem=str(error))]
    except DataError as error:
        return [Look(entry, problem=str(error), severity="error")]


def _seen(file: Look, data: FolderData, opened: Opened, part: str, picture: Picture) -> Look:
    pixels = picture.pixels
    deep = pixels.dtype != np.uint8
    return replace(
        file,
        part=part,
        id=f"{file.id} {part}",
        size=(pixels.shape[1], pixels.shape[0]),
        deep=deep,
        limits=(picture.window or limits_of(pixels)) if deep else (float(pixels.min()), float(pixels.max())),
        unmarked=_unmarked(file.entry, data, opened, part, picture),
        hash=_perceptual(picture),
    )


def _unmarked(entry: Entry, data: FolderData, opened: Opened, part: str, picture: Picture) -> bool:
    if entry.mask is None:
        return False
    names = part_name(entry.name, part), entry.mask.relative_to(data.root).as_posix()
    check_lossless(names[1])
    marked = bool(marks_of(opened, picture, open_file(entry.mask, data.reading), part, names).any())
    if marked and not entry.categories:
        raise DataError(f"{names[0]} is called normal but {names[1]} marks pixels; correct label or mask")
    return not marked


def _perceptual(picture: Picture) -> bytes:
    grey = to_unit(picture.pixels, HASHED_SIDE, picture.window).mean(axis=0)
    image = Pillow.fromarray((grey * 255).astype(np.uint8))
    return np.packbits(imagehash.phash(image, hash_size=HASH_SIDE).hash).tobytes()
