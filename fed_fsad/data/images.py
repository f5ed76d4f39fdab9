"""Images and masks of files, as the methods want them: square, float, in [0, 1]."""

import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from fed_fsad.data.decoding import Pixels, Undecodable, decode
from fed_fsad.data.samples import Image, Mask
from fed_fsad.errors import DataError

MAX_BYTES = 1 << 29
WINDOW = (0.5, 99.5)
"""Percentiles of an image of more than 8 bits that become 0 and 1 (ours): 12 bits in a 16-bit file stay visible."""
LOSSLESS = (".png", ".tif", ".tiff")


def to_unit(pixels: Pixels, size: int) -> Image:
    """Decoded pixels as [3, size, size] in [0, 1], by a plain LANCZOS resize to a square (D²4FAD's public code).

    8-bit images are divided by 255; others are windowed by their own 0.5 and 99.5 percentiles, all channels alike.
    """
    if pixels.dtype == np.uint8:
        resized = Pillow.fromarray(pixels).resize((size, size), Pillow.Resampling.LANCZOS)
        scaled: Image = np.ascontiguousarray(np.asarray(resized, dtype=np.float32).transpose(2, 0, 1)) / np.float32(255)
        return scaled
    shown = _window(pixels)
    channels = [shown] if shown.ndim == 2 else [shown[..., c] for c in range(3)]
    planes = [Pillow.fromarray(c).resize((size, size), Pillow.Resampling.LANCZOS) for c in channels]
    image: Image = np.clip(np.stack([np.asarray(plane) for plane in planes]), 0, 1)
    return np.ascontiguousarray(np.broadcast_to(image, (3, size, size)))


def _window(pixels: Pixels) -> NDArray[np.float32]:
    values = pixels.astype(np.float64)
    low, high = np.percentile(values, WINDOW)
    if low == high:  # a few pixels before a flat ground: the percentiles would hide them
        low, high = values.min(), values.max()
    shown: NDArray[np.float64] = (values - low) / max(high - low, np.finfo(np.float64).tiny)
    return shown.clip(0, 1).astype(np.float32)


def to_mask(pixels: Pixels, size: int) -> Mask:
    """Decoded mask pixels as [size, size], True where any channel is not 0, by nearest-neighbour resize."""
    marked = pixels.any(axis=-1) if pixels.ndim == 3 else pixels != 0
    resized = Pillow.fromarray(marked.astype(np.uint8)).resize((size, size), Pillow.Resampling.NEAREST)
    return np.asarray(resized, dtype=np.bool_)


def read_file(path: Path) -> bytes:
    """A file's bytes. Raises Undecodable for a missing or oversized file, DataError without permission to read."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise Undecodable("it is no regular file; name an image file")
        if found.st_size > MAX_BYTES:
            raise Undecodable(f"the file is larger than {MAX_BYTES >> 20} MiB; cut or rescale the image")
        return path.read_bytes()
    except PermissionError as error:
        raise denied(path) from error
    except FileNotFoundError as error:
        raise Undecodable("there is no such file; correct the path or restore the file") from error
    except OSError as error:
        raise Undecodable(f"the disk does not give it ({error.strerror}); check the drive") from error


def read_pixels(path: Path, name: str) -> Pixels:
    """A file's decoded pixels. Raises DataError that calls the file `name`."""
    try:
        return decode(read_file(path))
    except Undecodable as error:
        raise DataError(f"{name}: {error}") from error


def denied(path: Path) -> DataError:
    """The error for a path that exists but may not be read."""
    return DataError(f"{path} may not be read: permission denied; give the user of this program the right to read it")


def check_mask(image: Pixels, mask: Pixels, image_name: str, mask_name: str) -> None:
    """Raises DataError unless image and mask have one size, in pixels, after both were turned upright."""
    (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape[:2]
    if (height, width) != (mask_height, mask_width):
        raise DataError(
            f"mask {mask_name} is {mask_width} x {mask_height} pixels but its image {image_name} is "
            f"{width} x {height}; give every mask the size of its image"
        )


def check_lossless(mask_name: str) -> None:
    """Raises DataError for a mask in a lossy format, where compression leaves faint marks on normal pixels."""
    if not mask_name.lower().endswith(LOSSLESS):
        raise DataError(f"mask {mask_name} is not lossless; save masks as PNG or TIFF")


@dataclass(frozen=True)
class FileSource:
    """An image file and perhaps its mask; `normal` says that no pixel is abnormal when there is no mask."""

    path: Path
    mask_path: Path | None
    root: Path
    normal: bool

    @property
    def name(self) -> str:
        """The path relative to the data set's root, with forward slashes."""
        return self.path.relative_to(self.root).as_posix()

    def image(self, size: int) -> Image:
        """The image as [3, size, size] in [0, 1]. Raises DataError naming the file when it cannot be read."""
        return to_unit(read_pixels(self.path, self.name), size)

    def mask(self, size: int) -> Mask | None:
        """The marked pixels, [size, size]; all False for a normal image, None when nobody marked an abnormal one.

        Raises DataError when the mask cannot be read or its size is not the image's.
        """
        if self.mask_path is None:
            return np.zeros((size, size), dtype=np.bool_) if self.normal else None
        mask_name = self.mask_path.relative_to(self.root).as_posix()
        check_lossless(mask_name)
        image, mask = read_pixels(self.path, self.name), read_pixels(self.mask_path, mask_name)
        check_mask(image, mask, self.name, mask_name)
        return to_mask(mask, size)
