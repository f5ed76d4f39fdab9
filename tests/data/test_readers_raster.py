"""Every kind of file that is read, and every kind that is refused."""

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from fed_fsad.data.readers import picture, raster
from fed_fsad.data.readers.picture import Undecodable
from fed_fsad.data.readers.raster import decode

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (12, 9), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (12, 9, 3), dtype=np.uint8)
WIDE = RNG.integers(0, 4096, (12, 9, 3)).astype(np.uint16)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(values: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png16(values: NDArray[Any], colour_type: int) -> bytes:
    """A 16-bit PNG written from the format's own text: Pillow writes no 16-bit colour."""
    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_eight_bits_come_back_exactly(kind: str) -> None:
    np.testing.assert_array_equal(decode(saved(Image.fromarray(COLOUR), kind)), COLOUR)
    np.testing.assert_array_equal(decode(saved(Image.fromarray(GREY), kind)), np.stack([GREY] * 3, -1))


def test_jpeg_palette_and_one_bit() -> None:
    smooth = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8)[:, None], (24, 24))
    assert np.abs(decode(saved(Image.fromarray(smooth), "JPEG", quality=95))[..., 0].astype(int) - smooth).max() < 8
    palette = Image.fromarray(GREY // 128)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    expected = np.where(GREY[..., None] < 128, [10, 20, 30], [200, 100, 50])
    np.testing.assert_array_equal(decode(saved(palette, "PNG")), expected)
    bits = Image.fromarray(GREY > 127)
    np.testing.assert_array_equal(decode(saved(bits, "PNG"))[..., 1], np.where(GREY > 127, 255, 0))


def test_transparent_parts_are_black() -> None:
    alpha = np.where(GREY > 127, 255, 0).astype(np.uint8)
    for hidden in (np.dstack([COLOUR, alpha]), np.dstack([GREY, alpha])):
        out = decode(saved(Image.fromarray(hidden), "PNG"))
        assert not out[alpha == 0].any()
        np.testing.assert_array_equal(out[alpha == 255], np.broadcast_to(hidden[..., :-1], out.shape)[alpha == 255])


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "float32", "float64"])
def test_deep_grey_tiffs_keep_every_value(dtype: str, compression: str | None) -> None:
    values = WIDE[..., 0].astype(dtype)
    values[0, 0] = 3_000_000_000 if dtype == "uint32" else 7
    np.testing.assert_array_equal(decode(tiff(values, compression=compression)), values)


def test_deep_tiff_as_pillow_compresses_it() -> None:
    data = saved(Image.fromarray(WIDE[..., 0]), "TIFF", compression="tiff_lzw")
    np.testing.assert_array_equal(decode(data), WIDE[..., 0])


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_deep_colour_keeps_every_bit(planar: str) -> None:
    np.testing.assert_array_equal(decode(png16(WIDE, 2)), WIDE)
    values = WIDE if planar == "contig" else np.moveaxis(WIDE, -1, 0)
    np.testing.assert_array_equal(decode(tiff(values, photometric="rgb", planarconfig=planar)), WIDE)


def test_deep_colour_over_black() -> None:
    alpha = np.where(GREY > 127, 65535, 0).astype(np.uint16)
    expected = np.where(alpha[..., None] > 0, WIDE, 0)
    for data in (png16(np.dstack([WIDE, alpha]), 6), tiff(np.dstack([WIDE, alpha]), extrasamples=["unassalpha"])):
        np.testing.assert_allclose(decode(data), expected, atol=1e-3)
    grey = decode(png16(np.dstack([WIDE[..., 0], alpha]), 4))
    np.testing.assert_allclose(grey, expected[..., 0], atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_zero_may_mean_white(dtype: str) -> None:
    values = GREY.astype(dtype)
    out = decode(tiff(values, photometric="miniswhite"))
    np.testing.assert_array_equal(out if out.ndim == 2 else out[..., 0], np.iinfo(dtype).max - values)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_reader_turns_images_upright(orientation: int) -> None:
    """Camera-made 8-bit files are the judge (Pillow's own reading); the 16-bit readers must turn the same way."""
    exif = Image.Exif()
    exif[raster.ORIENTATION] = orientation
    judged = decode(saved(Image.fromarray(COLOUR), "PNG", exif=exif))
    if orientation == 6:  # stored rows are the shown columns, from right to left
        np.testing.assert_array_equal(judged, np.rot90(COLOUR, -1))
    deep = COLOUR.astype(np.uint16)
    tag = [(raster.ORIENTATION, "H", 1, orientation, True)]
    np.testing.assert_array_equal(decode(tiff(COLOUR, photometric="rgb", extratags=tag)), judged)
    np.testing.assert_array_equal(decode(tiff(deep, photometric="rgb", extratags=tag)), judged)
    np.testing.assert_array_equal(decode(tiff(deep[..., 0], extratags=tag)), judged[..., 0])
    np.testing.assert_array_equal(decode(tiff(deep[..., 0].astype(np.float64), extratags=tag)), judged[..., 0])
    png = png16(deep, 2)
    turned = png[:33] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + png[33:]
    np.testing.assert_array_equal(decode(turned), judged)


def test_what_is_refused_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = Image.new("L", (1, 40))
    stack = tiff(np.zeros((3, 12, 9), np.uint16), photometric="minisblack")
    not_numbers = np.full((12, 9), np.nan, np.float32)
    for data, reason in [
        (b"", "damaged"),
        (b"some text", "no PNG, JPEG or TIFF"),
        (saved(Image.fromarray(GREY), "GIF"), "no PNG, JPEG or TIFF"),
        (saved(lines, "PNG"), "1 x 40 pixels"),
        (stack, "several images"),
        (tiff(not_numbers), "no numbers"),
        (tiff(np.zeros((12, 9), np.complex64)), "neither grey nor RGB"),
    ]:
        with pytest.raises(Undecodable, match=reason):
            decode(data)
    monkeypatch.setattr(picture, "MAX_PIXELS", 100)
    for data in (saved(Image.fromarray(GREY), "PNG"), tiff(WIDE, photometric="rgb"), tiff(GREY.astype(np.float64))):
        with pytest.raises(Undecodable, match="9 x 12 pixels"):
            decode(data)


def test_a_bomb_is_refused_before_it_unpacks() -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(Undecodable, match="far too large"):
        decode(bomb)


VALID = [
    saved(Image.fromarray(COLOUR), "PNG"),
    saved(Image.fromarray(COLOUR), "JPEG"),
    saved(Image.fromarray(COLOUR), "TIFF", compression="tiff_lzw"),
    png16(WIDE, 2),
    png16(WIDE[..., :2], 4),
    tiff(WIDE, photometric="rgb"),
    tiff(WIDE[..., 0].astype(np.float64), compression="zlib"),
]


def assert_only_undecodable(data: bytes) -> None:
    with contextlib.suppress(Undecodable):
        assert decode(data).ndim in (2, 3)


@pytest.mark.parametrize("data", VALID)
def test_truncated_files_raise_nothing_else(data: bytes) -> None:
    for length in range(0, len(data), 7):
        assert_only_undecodable(data[:length])
    with pytest.raises(Undecodable):
        decode(data[: len(data) * 2 // 3])


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"MM\0*"]))
def test_random_bytes_raise_nothing_else(data: bytes, start: bytes) -> None:
    assert_only_undecodable(start + data)


@settings(max_examples=250, deadline=None)
@given(st.sampled_from(VALID), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=6))
def test_flipped_bytes_raise_nothing_else(data: bytes, changes: list[tuple[float, int]]) -> None:
    damaged = bytearray(data)
    for place, value in changes:
        damaged[int(place * len(damaged))] = value
    assert_only_undecodable(bytes(damaged))
