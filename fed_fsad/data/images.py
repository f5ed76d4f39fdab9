"""Images and masks of files, as the methods want them: square, float, in [0, 1]."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from fed_fsad.data.parallel import ordered
from fed_fsad.data.readers import RASTER, open_file
from fed_fsad.data.readers.files import check_file, read_file
from fed_fsad.data.readers.picture import WHOLE, Opened, Picture, Pixels, Undecodable, limits_of, upright
from fed_fsad.data.readers.raster import decode
from fed_fsad.data.samples import Image, Mask, Source
from fed_fsad.data.scanner import Shift
from fed_fsad.data.settings import Reading
from fed_fsad.errors import DataError

LOSSLESS = (".png", ".tif", ".tiff", ".dcm", ".nii", ".nii.gz")
AS_PUBLISHED = Reading()
Box = tuple[int, int]
"""Width and height, in pixels, that an image takes of its square; the rest is black."""
BATCH = 16
"""Images of one file that one process reads at a time."""


def to_unit(pixels: Pixels, size: int, window: tuple[float, float] | None = None, box: Box | None = None) -> Image:
    """Decoded pixels as [3, size, size] in [0, 1], by a LANCZOS resize to a square (D²4FAD's public code) or a box.

    8-bit images are divided by 255; of others the window's values become 0 and 1, all channels alike, and without a
    window the image's own 0.5 and 99.5 percentiles.
    """
    box = box or (size, size)
    if pixels.dtype == np.uint8:
        resized = Pillow.fromarray(pixels).resize(box, Pillow.Resampling.LANCZOS)
        scaled: Image = np.ascontiguousarray(np.asarray(resized, dtype=np.float32).transpose(2, 0, 1)) / np.float32(255)
        return _framed(scaled, size)
    values = pixels.astype(np.float64)
    low, high = window or limits_of(values)
    shown = ((values - low) / max(high - low, np.finfo(np.float64).tiny)).clip(0, 1).astype(np.float32)
    channels = [shown] if shown.ndim == 2 else [shown[..., c] for c in range(3)]
    planes = [Pillow.fromarray(c).resize(box, Pillow.Resampling.LANCZOS) for c in channels]
    image: Image = np.clip(np.stack([np.asarray(plane) for plane in planes]), 0, 1)
    return _framed(np.ascontiguousarray(np.broadcast_to(image, (3, *image.shape[1:]))), size)


def to_mask(pixels: Pixels, size: int, box: Box | None = None) -> Mask:
    """Decoded mask pixels as [size, size], True where any channel is not 0, by nearest-neighbour resize."""
    marked = pixels.any(axis=-1) if pixels.ndim == 3 else pixels != 0
    resized = Pillow.fromarray(marked.astype(np.uint8)).resize(box or (size, size), Pillow.Resampling.NEAREST)
    mask: Mask = _framed(np.asarray(resized, dtype=np.bool_)[None], size)[0]
    return mask


def letterbox(picture: Picture, size: int) -> Box:
    """The largest box of the picture's proportions in a square, by the shape of its pixels."""
    height, width = picture.pixels.shape[0] * picture.aspect, picture.pixels.shape[1]
    longer = max(height, width)
    return max(1, round(size * width / longer)), max(1, round(size * height / longer))


def _framed(image: NDArray[Any], size: int) -> NDArray[Any]:
    """[C, h, w] in the middle of a square, zeros around it."""
    height, width = image.shape[1:]
    if (height, width) == (size, size):
        return image
    framed = np.zeros((len(image), size, size), image.dtype)
    top, left = (size - height) // 2, (size - width) // 2
    framed[:, top : top + height, left : left + width] = image
    return framed


def read_pixels(path: Path, name: str) -> Pixels:
    """The decoded pixels of a PNG, JPEG or TIFF file. Raises DataError that calls the file `name`."""
    try:
        return decode(read_file(path))
    except Undecodable as error:
        raise DataError(f"{name}: {error}") from error


def marks_of(image: Opened, picture: Picture, mask: Opened, part: str, names: tuple[str, str]) -> Pixels:
    """The mask of one part, [H, W] or [H, W, C], turned as its picture was.

    names: what to call image and mask. Raises DataError when they do not lie on each other pixel by pixel, Undecodable
    when the mask cannot be read.
    """
    marks = upright(mask.marks(part), picture.turned)
    (height, width), (mask_height, mask_width) = picture.pixels.shape[:2], marks.shape[:2]
    if (height, width) != (mask_height, mask_width):
        raise DataError(
            f"mask {names[1]} is {mask_width} x {mask_height} pixels but its image {names[0]} is "
            f"{width} x {height}; give every mask the size of its image"
        )
    if image.grid is not None and mask.grid is not None and not image.grid.fits(mask.grid):
        raise DataError(f"mask {names[1]} lies elsewhere than its image {names[0]}; resample it to the image's grid")
    return marks


def check_lossless(mask_name: str) -> None:
    """Raises DataError for a mask in a lossy format, where compression leaves faint marks on normal pixels."""
    if not mask_name.lower().endswith(LOSSLESS):
        raise DataError(f"mask {mask_name} is not lossless; save masks as PNG or TIFF, or as a medical file")


def part_name(name: str, part: str) -> str:
    """What to call one image of a file: "scans/p1.nii.gz#axial-077"; the file's own name when it holds one image."""
    return f"{name}#{part}" if part else name


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Turn Undecodable into a DataError that calls the file `name`."""
    try:
        yield
    except Undecodable as error:
        raise DataError(f"{name}: {error}") from error


def open_part(path: Path, reading: Reading, part: str | None) -> Opened:
    """The file, kept open when one part of several is asked for. Raises as open_file."""
    if not part:
        return open_file(path, reading)
    check_file(path, None)
    found = path.stat()
    return _kept_open(path, (found.st_mtime_ns, found.st_size), reading)


@lru_cache(maxsize=2)
def _kept_open(path: Path, stamp: tuple[int, int], reading: Reading) -> Opened:
    """A file of several images and its mask, unpacked once for all its parts; `stamp` changes when the file does."""
    return open_file(path, reading)


@dataclass(frozen=True)
class FileSource:
    """One image of a file and perhaps its mask; `normal` says that no pixel is abnormal when there is no mask, `shift`
    makes it look as if another scanner had taken it.
    """

    path: Path
    mask_path: Path | None
    root: Path
    normal: bool
    part: str = WHOLE
    reading: Reading = AS_PUBLISHED
    shift: Shift | None = None

    @property
    def name(self) -> str:
        """The path relative to the data set's root, with forward slashes, and the part."""
        return part_name(self.path.relative_to(self.root).as_posix(), self.part)

    @property
    def heavy(self) -> bool:
        """Whether its reader keeps the interpreter busy, so that other processes read faster than other threads."""
        return bool(self.part) or not self.path.name.lower().endswith(RASTER)

    def image(self, size: int) -> Image:
        """The image as [3, size, size] in [0, 1]. Raises DataError naming the file when it cannot be read."""
        with naming(self.name):
            picture = self._opened(self.path).picture(self.part)
        shown = to_unit(picture.pixels, size, picture.window, self._box(picture, size))
        return shown if self.shift is None else self.shift.apply(shown)

    def mask(self, size: int) -> Mask | None:
        """The marked pixels, [size, size]; all False for a normal image, None when nobody marked an abnormal one.

        Raises DataError when the mask cannot be read or its size is not the image's.
        """
        if self.mask_path is None:
            return np.zeros((size, size), dtype=np.bool_) if self.normal else None
        mask_name = self.mask_path.relative_to(self.root).as_posix()
        check_lossless(mask_name)
        with naming(self.name):
            image = self._opened(self.path)
            picture = image.picture(self.part)
        with naming(mask_name):
            marks = marks_of(image, picture, self._opened(self.mask_path), self.part, (self.name, mask_name))
        return to_mask(marks, size, self._box(picture, size))

    def _box(self, picture: Picture, size: int) -> Box | None:
        return letterbox(picture, size) if self.reading.fit == "letterbox" else None

    def _opened(self, path: Path) -> Opened:
        return open_part(path, self.reading, self.part)


def read_images(sources: Sequence[Source], size: int) -> Iterator[Image]:
    """The images of `sources`, in their order, read ahead of the caller. Raises DataError as Source.image."""
    heavy = any(isinstance(source, FileSource) and source.heavy for source in sources)
    batches = [list(own) for _, own in groupby(sources, _file_of)] if heavy else [[source] for source in sources]
    tasks = [batch[start : start + BATCH] for batch in batches for start in range(0, len(batch), BATCH)]
    for images in ordered(partial(_read, size=size), tasks, heavy):
        yield from images


def _file_of(source: Source) -> Path | None:
    """What one process should read at a time, because its parts are unpacked together."""
    return source.path if isinstance(source, FileSource) else None


def _read(sources: Sequence[Source], size: int) -> list[Image]:
    return [source.image(size) for source in sources]
