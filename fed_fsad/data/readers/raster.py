"""Image files as arrays: PNG, JPEG and TIFF of 1 to 32 bits, grey or colour, turned upright.

Pillow reads everything it keeps whole. 16-bit colour, which it would cut to 8 bits, is read in two halves (PNG) or
by tifffile (TIFF).
"""

import hashlib
import logging
from collections.abc import Iterator
from functools import cached_property
from io import BytesIO

import numpy as np
import tifffile
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from fed_fsad.data.readers.files import read_file
from fed_fsad.data.readers.picture import (
    WHOLE,
    Opened,
    Picture,
    Pixels,
    Undecodable,
    check_finite,
    check_size,
    damaged,
    upright,
    wrong_size,
)

ORIENTATION = 0x0112
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339
"""Numbers of TIFF tags."""
logging.getLogger("tifffile").addHandler(logging.NullHandler())  # damaged files are told by Undecodable, once
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


EXACT = (1, 5, 8, 32773, 32946, 34925, 50000)
"""TIFF's numbers of compressions that give no more than was asked for: none, LZW, deflate, PackBits, LZMA, Zstd."""
SEVERAL = "the TIFF holds several images; save one image per file, or set reading.tiles for a pyramid"


class Raster(Opened):
    """A PNG, JPEG or TIFF file of one image."""

    @cached_property
    def _data(self) -> bytes:
        return read_file(self.path)

    def digest(self) -> str:
        """SHA-256 of the bytes that are decoded: the file is read once."""
        return hashlib.sha256(self._data).hexdigest()

    def pictures(self) -> Iterator[tuple[str, Picture]]:
        """The one image."""
        yield WHOLE, self.picture(WHOLE)

    def picture(self, part: str) -> Picture:
        """The one image. Raises Undecodable for any other part."""
        if part != WHOLE:
            raise Undecodable(f"it holds one image and no part {part!r}; leave the part out")
        return Picture(decode(self._data))


def decode(data: bytes) -> Pixels:
    """The picture in a file's bytes, upright by its EXIF orientation, transparent parts shown over black.

    Raises Undecodable for anything else than one PNG, JPEG or TIFF image of sensible size.
    """
    with damaged("the file is damaged or no PNG, JPEG or TIFF image; replace or remove it"):
        try:
            pixels = _decode(data)
        except Image.DecompressionBombError as error:
            raise wrong_size("far too large") from error
    check_finite(pixels)
    return pixels


def _decode(data: bytes) -> Pixels:
    try:
        with Image.open(BytesIO(data), formats=("PNG", "JPEG", "TIFF")) as image:
            check_size(*image.size)
            if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
                raise Undecodable(SEVERAL)
            if not _loses_depth(image):
                return _by_pillow(image)
            if image.format == "PNG":
                return upright(_over_black(_deep_png(data)), image.getexif().get(ORIENTATION, 1))
    except UnidentifiedImageError:
        if not data.startswith(TIFF_STARTS):
            raise
    return _by_tifffile(data)


def _loses_depth(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow's own decoding would drop bits (16-bit colour) or wrap values (unsigned 32-bit)."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        unsigned = image.tag_v2.get(SAMPLE_FORMAT, (1,))[0] == 1
        deep = max(image.tag_v2.get(BITS, (1,))) > 8
        return deep and (image.mode[0] not in "IF" or (image.mode == "I" and unsigned))
    return any(";16" in str(tile.args) and image.mode[0] != "I" for tile in image.tile)


def _by_pillow(image: Image.Image) -> Pixels:
    # Pillow inverts "0 is white" for up to 8 bits only.
    white_is_zero = image.format == "TIFF" and image.getexif().get(PHOTOMETRIC) == 0
    turned = ImageOps.exif_transpose(image)
    if turned.mode[0] in "IF":
        pixels = np.asarray(turned)
        return _inverted(pixels) if white_is_zero else pixels
    if turned.has_transparency_data:
        black = Image.new("RGBA", turned.size, (0, 0, 0, 255))
        turned = Image.alpha_composite(black, turned.convert("RGBA"))
    return np.asarray(turned.convert("RGB"))


def _deep_png(data: bytes) -> Pixels:
    """16-bit colour or grey with alpha as [H, W, 2 to 4] uint16, through Pillow's 8-bit unpackers.

    Colour read as big-endian gives the high bytes, as little-endian the low ones; two channels of 16 bits read as four
    of 8 give the bytes themselves.
    """
    read = []
    for order in "BL":
        with Image.open(BytesIO(data), formats=("PNG",)) as image:
            two = str(image.tile[0].args).startswith("LA")
            unpacker = "RGBA" if two else f"{image.mode};16{order}"
            image.tile = [tile._replace(args=unpacker) for tile in image.tile]
            read.append(np.asarray(image))
        if two:
            return read[0].view(">u2").astype(np.uint16)
    pixels: Pixels = read[0].astype(np.uint16) << 8 | read[1]
    return pixels


def _by_tifffile(data: bytes) -> Pixels:
    with tifffile.TiffFile(BytesIO(data)) as tiff:
        if len(tiff.pages) != 1:
            raise Undecodable(SEVERAL)
        page = tiff.pages.first
        kind = "none" if page.dtype is None else page.dtype.kind
        if page.axes not in ("YX", "YXS", "SYX") or page.photometric not in (0, 1, 2) or kind not in "uif":
            raise Undecodable("the TIFF is neither grey nor RGB; save it as a plain grey or RGB image")
        check_size(page.imagewidth, page.imagelength)
        if page.compression not in EXACT:
            raise Undecodable("the TIFF is compressed unusually; save it uncompressed")
        try:
            pixels = page.asarray()
        except (KeyError, ValueError) as error:  # a codec that tifffile leaves to an optional package
            raise Undecodable("the TIFF is damaged or compressed unusually; save it uncompressed") from error
        orientation = page.tags.valueof(ORIENTATION, 1)
        pixels = np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else pixels
        pixels = _over_black(pixels[..., None] if page.axes == "YX" else pixels)
        shown = upright(_inverted(pixels) if page.photometric == 0 else pixels, orientation)
        # Pillow may not know, or think deep, what turns out to be 8-bit grey.
        return np.repeat(shown[..., None], 3, axis=2) if shown.dtype == np.uint8 and shown.ndim == 2 else shown


def _inverted(pixels: Pixels) -> Pixels:
    """White for black: the largest value of the type minus the pixel; signed and float values change their sign."""
    return np.iinfo(pixels.dtype).max - pixels if pixels.dtype.kind == "u" else -pixels


def _over_black(pixels: Pixels) -> Pixels:
    """[H, W, 1 to 4] with an alpha channel last when C is 2 or 4, to [H, W] or [H, W, 3]."""
    channels = pixels.shape[-1]
    if channels in (2, 4):
        if pixels.dtype.kind != "u":
            raise Undecodable("the image has a transparency that is no unsigned integer; save it without transparency")
        pixels = pixels[..., :-1] * (pixels[..., -1:] / np.float32(np.iinfo(pixels.dtype).max))
    elif channels not in (1, 3):
        raise Undecodable(f"the image has {channels} channels; save it as a grey or RGB image")
    return pixels[..., 0] if pixels.shape[-1] == 1 else pixels
