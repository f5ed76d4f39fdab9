"""Tiles of large TIFF images: every tile is the plain slice of the array that was saved."""

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray

from fed_fsad.data.images import FileSource
from fed_fsad.data.readers.picture import Undecodable
from fed_fsad.data.readers.raster import decode
from fed_fsad.data.readers.slides import tissue
from fed_fsad.data.settings import Reading, Tiles
from fed_fsad.errors import DataError
from tests.data.files import RNG, pictures, slide

PINK = RNG.integers(60, 200, (90, 140, 3), dtype=np.uint8)


def tiles(path: Path, **settings: Any) -> dict[str, NDArray[Any]]:
    found = pictures(path, tiles=Tiles(**{"side": 32, **settings}))
    return {part: picture.pixels for part, picture in found.items()}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"compression": "lzw", "predictor": True},
        {"tile": None},
        {"tile": None, "rowsperstrip": 7, "compression": "zlib"},
        {"tile": (48, 16), "compression": "zlib"},
    ],
    ids=str,
)
def test_tiles_are_slices_however_they_are_stored(tmp_path: Path, options: dict[str, Any]) -> None:
    slide(tmp_path / "a.tif", PINK, **options)
    for stride in (32, 20):
        expected = {
            f"tile-0-32-{y}-{x}": PINK[y : y + 32, x : x + 32]
            for y in range(0, 90 - 31, stride)
            for x in range(0, 140 - 31, stride)
        }
        found = tiles(tmp_path / "a.tif", stride=stride)
        assert list(found) == list(expected)
        for part, pixels in found.items():
            np.testing.assert_array_equal(pixels, expected[part])


def test_lossy_pieces_of_a_scanner(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.linspace(80, 160, 140).astype(np.uint8)[None, :, None], (90, 140, 3)).copy()
    slide(tmp_path / "a.tif", smooth, compression="jpeg", compressionargs={"level": 95})
    for part, pixels in tiles(tmp_path / "a.tif").items():
        x = int(part.rpartition("-")[2])
        assert np.abs(pixels.astype(int) - smooth[:32, x : x + 32]).max() <= 4


@pytest.mark.parametrize("declared", [True, False])
def test_levels_of_a_pyramid(tmp_path: Path, declared: bool) -> None:
    half, label = PINK[::2, ::2], RNG.integers(60, 200, (64, 32, 3), dtype=np.uint8)
    path = tmp_path / "a.tif"
    if declared:
        with tifffile.TiffWriter(path) as tiff:
            tiff.write(PINK, tile=(16, 32), photometric="rgb", subifds=1)
            tiff.write(half, tile=(16, 32), photometric="rgb", subfiletype=1)
    else:
        slide(path, PINK, label, half)  # a label between the levels, as some scanners save it
    np.testing.assert_array_equal(tiles(path, level=1)["tile-1-32-0-32"], half[:32, 32:64])
    with pytest.raises(Undecodable, match=r"has 2 levels, counted from 0; lower tiles\.level"):
        tiles(path, level=2)


def test_glass_and_the_scanners_border_are_left_out(tmp_path: Path) -> None:
    picture = np.full((64, 128, 3), 245, np.uint8)
    picture[:32, :32] = 3
    picture[:16, 32:64] = (220, 140, 190)
    picture[32:, 96:] = (120, 60, 150)
    slide(tmp_path / "a.tif", picture)
    assert list(tiles(tmp_path / "a.tif")) == ["tile-0-32-0-32", "tile-0-32-32-96"]
    assert list(tiles(tmp_path / "a.tif", tissue=0.6)) == ["tile-0-32-32-96"]
    assert len(tiles(tmp_path / "a.tif", tissue=0)) == 8
    assert [tissue(picture[:32, x : x + 32]) for x in (0, 32, 64)] == [0, 0.5, 0]


def test_grey_inverted_and_transparent_slides(tmp_path: Path) -> None:
    grey = PINK[..., 0]
    slide(tmp_path / "grey.tif", grey)
    slide(tmp_path / "white.tif", 255 - grey, photometric="miniswhite")
    for name in ("grey.tif", "white.tif"):
        np.testing.assert_array_equal(tiles(tmp_path / name)["tile-0-32-32-64"][..., 1], grey[32:64, 64:96])
    slide(tmp_path / "alpha.tif", np.dstack([PINK, grey]), extrasamples=["unassalpha"])
    np.testing.assert_array_equal(tiles(tmp_path / "alpha.tif")["tile-0-32-0-0"], PINK[:32, :32])


def test_a_mask_of_the_same_level(tmp_path: Path) -> None:
    marked = np.zeros((90, 140), np.uint8)
    marked[40, 70] = 1
    slide(tmp_path / "a.tif", PINK)
    slide(tmp_path / "m.tif", marked, compression="zlib")
    reading = Reading(tiles=Tiles(side=32))
    for x, expected in ((64, True), (96, False)):
        part = f"tile-0-32-32-{x}"
        mask = FileSource(tmp_path / "a.tif", tmp_path / "m.tif", tmp_path, False, part, reading).mask(32)
        assert mask is not None
        np.testing.assert_array_equal(mask, marked[32:64, x : x + 32] > 0)
        assert mask.any() == expected
    slide(tmp_path / "m.tif", marked[:-1])
    with pytest.raises(DataError, match=r"mask m\.tif lies elsewhere than its image a\.tif"):
        FileSource(tmp_path / "a.tif", tmp_path / "m.tif", tmp_path, False, "tile-0-32-0-0", reading).mask(32)


def test_a_width_that_is_no_whole_number(tmp_path: Path) -> None:
    data = bytearray(slide(tmp_path / "a.tif", PINK, compression="zlib").read_bytes())
    entry = data.index(np.array([256, 4, 1, 0], "<u2").tobytes())  # ImageWidth, one LONG
    data[entry + 2] = 11  # FLOAT
    data[entry + 8 : entry + 12] = np.float32(140).tobytes()
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(Undecodable, match="sizes are no whole numbers"):
        tiles(tmp_path / "a.tif")


def test_pages_that_lead_back_to_themselves(tmp_path: Path) -> None:
    path = slide(tmp_path / "a.tif", PINK, PINK[::2, ::2])
    with tifffile.TiffFile(path) as tiff:
        second = tiff.pages[1].offset
    data = bytearray(path.read_bytes())
    (entries,) = struct.unpack_from("<H", data, second)
    struct.pack_into("<I", data, second + 2 + 12 * entries, second)
    path.write_bytes(data)
    assert len(tiles(path)) == 8


def test_parts_that_do_not_exist(tmp_path: Path) -> None:
    slide(tmp_path / "a.tif", PINK)
    for part in ("tile-0-32-60-0", "tile-0-32-0-109", "tile-1-32-0-0", "tile-0-0-0-0", "axial-003", ""):
        source = FileSource(tmp_path / "a.tif", None, tmp_path, True, part, Reading(tiles=Tiles(side=32)))
        with pytest.raises(DataError, match="it has no part"):
            source.image(8)


@pytest.mark.parametrize(
    ("values", "options", "reason"),
    [
        (PINK.astype(np.uint16), {}, "8 bits a channel"),
        (np.zeros((90, 140), np.float32), {}, "neither grey nor RGB"),
        (PINK[:20], {}, "140 x 20 pixels, less than one tile of 32"),
        (PINK[..., :2].copy(), {"photometric": "minisblack", "planarconfig": "contig"}, "2 channels"),
    ],
)
def test_what_is_refused_and_why(tmp_path: Path, values: NDArray[Any], options: dict[str, Any], reason: str) -> None:
    slide(tmp_path / "a.tif", values, **options)
    with pytest.raises(Undecodable, match=reason):
        tiles(tmp_path / "a.tif")


def test_too_many_tiles_and_pieces_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide(tmp_path / "a.tif", PINK)
    monkeypatch.setattr("fed_fsad.data.readers.slides.MAX_PARTS", 9000)
    with pytest.raises(Undecodable, match=r"it would be cut into 9375 tiles; raise tiles\.stride or level"):
        tiles(tmp_path / "a.tif", side=16, stride=1)
    slide(tmp_path / "strip.tif", PINK, tile=None, rowsperstrip=90, compression="zlib")
    monkeypatch.setattr("fed_fsad.data.readers.slides.MAX_PIXELS", 1000)
    with pytest.raises(Undecodable, match="stored in one piece; save it as a tiled TIFF"):
        tiles(tmp_path / "strip.tif")


def test_without_tiles_a_slide_is_refused_by_its_size_or_pages(tmp_path: Path) -> None:
    slide(tmp_path / "a.tif", PINK, PINK[::2, ::2])
    with pytest.raises(Undecodable, match=r"several images; save one image per file, or set reading\.tiles for a pyra"):
        decode((tmp_path / "a.tif").read_bytes())


def test_cut_off_at_any_byte(tmp_path: Path) -> None:
    slide(tmp_path / "a.tif", PINK[:40, :40], compression="zlib")
    data = (tmp_path / "a.tif").read_bytes()
    for length in range(0, len(data) - 300, 211):
        (tmp_path / "cut.tif").write_bytes(data[:length])
        with pytest.raises(Undecodable):
            tiles(tmp_path / "cut.tif")


READ = """
import resource, sys
from pathlib import Path
from fed_fsad.data.readers import open_file
from fed_fsad.data.readers.picture import Undecodable
from fed_fsad.data.settings import Reading, Tiles
path = Path(sys.argv[1])
try:
    list(open_file(path, Reading()).pictures())
except Undecodable as error:
    print(error)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
parts = list(open_file(path, Reading(tiles=Tiles(side=256, stride=9000, tissue=0))).pictures())
print(len(parts), int(parts[6][1].pixels.max()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_forty_thousand_pixels_a_side_are_never_whole_in_memory(tmp_path: Path) -> None:
    whole = tifffile.memmap(tmp_path / "a.tif", shape=(40_000, 40_000), dtype=np.uint8)  # holes on the disk
    whole[9000, 9000] = 77
    whole.flush()
    call = [sys.executable, "-c", READ, str(tmp_path / "a.tif")]
    refused, read = subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines()
    assert "larger than 512 MiB; cut or rescale it, or set reading.tiles for a TIFF" in refused
    tiles, value, grown = map(int, read.split())
    assert (tiles, value) == (25, 77)
    assert grown < 100_000  # kilobytes; the image has 1.6 million
