"""What every reader gives: pictures, part by part, and one kind of error."""

import hashlib
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_fsad.errors import DataError

Pixels = NDArray[Any]
"""[H, W, 3] uint8, or raw values of more than 8 bits as [H, W] or [H, W, 3]."""
WHOLE = ""
"""The part of a file that holds one image."""

MAX_PIXELS = 50_000_000
MIN_SIDE = 8
MAX_PARTS = 100_000
SPREAD = 16
"""Slices or frames, evenly spread over a file, that its percentiles are taken from."""
MOST_SEEN = 1 << 24
"""Values that those percentiles are taken from; of larger slices every second or third row and column."""
PERCENTILES = (0.5, 99.5)
"""What becomes 0 and 1 in an image of more than 8 bits without a window (ours): 12 bits in 16 stay visible."""


class Undecodable(DataError):
    """A file that cannot serve as an image; the message is the reason and leaves the file's name to the caller."""


@contextmanager
def damaged(reason: str) -> Iterator[None]:
    """Turn what parsers and decoders raise on damaged bytes, which may be anything, into Undecodable with `reason`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except DataError:
        raise
    except Exception as error:
        raise Undecodable(reason) from error


@dataclass(frozen=True)
class Picture:
    """One image, upright.

    window: the values shown as 0 and 1; None: 0 and 255 for uint8, else the image's own percentiles. aspect: a pixel's
    height over its width. turned: the EXIF orientation (1 to 8) by which stored pixels became upright and by which a
    mask that lies like the stored pixels must be turned; 1 = not at all.
    """

    pixels: Pixels
    window: tuple[float, float] | None = None
    aspect: float = 1.0
    turned: int = 1


@dataclass(frozen=True)
class Grid:
    """Where the pixels of a file lie: its size along each axis and, for volumes, the affine to millimetres [4, 4]."""

    shape: tuple[int, ...]
    affine: NDArray[np.float64] | None = None

    def fits(self, other: "Grid") -> bool:
        """Whether both have one size and, within a thousandth of a millimetre, one place."""
        if self.affine is None or other.affine is None:
            return self.shape == other.shape
        return self.shape == other.shape and np.allclose(self.affine, other.affine, atol=1e-3)


class Opened(ABC):
    """A file whose kind is known. All its methods raise Undecodable when the file cannot serve.

    patient: the patient id of its header, or None. It is only ever compared and hashed. grid: None where the size of
    the pixels says all.
    """

    patient: str | None = None
    grid: Grid | None = None

    def __init__(self, path: Path) -> None:
        self.path = path

    def digest(self) -> str:
        """SHA-256 of the file's bytes, in hexadecimal."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @abstractmethod
    def pictures(self) -> Iterator[tuple[str, Picture]]:
        """The images that the settings choose, with the name of each part, in the file's order."""

    @abstractmethod
    def picture(self, part: str) -> Picture:
        """One part, chosen or not."""

    def marks(self, part: str) -> Pixels:
        """The same part as a mask: [H, W] or [H, W, C], not 0 where marked, before any `turned`."""
        return self.picture(part).pixels


def check_size(width: int, height: int) -> None:
    """Raises Undecodable for sides or areas outside what is read."""
    if min(width, height) < MIN_SIDE or width * height > MAX_PIXELS:
        raise wrong_size(f"{width} x {height} pixels")


def wrong_size(found: str) -> Undecodable:
    """The error for an image of a size that is not read."""
    limits = f"sides of at least {MIN_SIDE} and at most {MAX_PIXELS // 10**6} million pixels"
    return Undecodable(
        f"the image is {found}, which is outside what is read ({limits}); cut or rescale it, or set reading.tiles for "
        "a large TIFF"
    )


def check_finite(pixels: Pixels) -> None:
    """Raises Undecodable for values that are no numbers."""
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise Undecodable("the image holds values that are no numbers; save it again with finite values")


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo the EXIF orientation (1 to 8; anything else changes nothing)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def limits_of(values: Pixels) -> tuple[float, float]:
    """The values to show as 0 and 1: the percentiles, or the extremes where a flat ground makes those equal."""
    low, high = np.percentile(values, PERCENTILES)
    if low == high:  # a few pixels before a flat ground: the percentiles would hide them
        low, high = values.min(), values.max()
    return float(low), float(high)


def pick(slices: str, count: int) -> range:
    """The numbers, of 0 to count - 1, that `reading.slices` names. Raises Undecodable when there is none."""
    match slices.split():
        case ["middle"]:
            chosen = range(count // 2, count // 2 + 1)
        case ["all"]:
            chosen = range(count)
        case ["every", step]:
            chosen = range(0, count, int(step))
        case _:
            first, last = map(int, slices.split("-"))
            chosen = range(first, min(last + 1, count))
    if not chosen:
        raise Undecodable(f"the file holds {count} slices or frames and none of {slices}; correct reading.slices")
    return chosen


def number_of(part: str, kind: str, count: int) -> int:
    """The number in a part's name "KIND-NUMBER". Raises Undecodable when the file has no such part."""
    name, _, number = part.rpartition("-")
    if name != kind or not number.isdecimal() or int(number) >= count:
        raise Undecodable(f"it has no part {part!r}, only {kind}-000 to {kind}-{count - 1:03}; correct the part")
    return int(number)


def step_of(width: int, height: int) -> int:
    """Every which row and column of up to SPREAD slices of this size gives MOST_SEEN values at most."""
    return max(1, math.ceil(math.sqrt(SPREAD * width * height / MOST_SEEN)))


def spread(count: int) -> list[int]:
    """Up to SPREAD numbers of 0 to count - 1, evenly spread."""
    return sorted({int(place) for place in np.linspace(0, count - 1, min(SPREAD, count)).round()})
