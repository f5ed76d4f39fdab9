"""Compressed pixels that announce more than their file: refused before a decoder makes room for them."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless

from fed_fsad.data.readers.codestream import check_announced
from fed_fsad.data.readers.picture import Undecodable
from fed_fsad.data.settings import Tiles
from tests.data.files import RNG, dicom, only, pictures, slide

GREY = RNG.integers(0, 256, (48, 72), dtype=np.uint8)
COLOUR = np.stack([GREY, GREY // 2, GREY // 3], -1)


def encoded(values: NDArray[Any], kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind, **options)
    return buffer.getvalue()


def grown(data: bytes) -> bytes:
    """The same data, announcing 60,000 pixels a side."""
    out = bytearray(data)
    if (at := out.find(b"\xff\x4f\xff\x51")) >= 0:
        out[at + 8 : at + 16] = struct.pack(">II", 60_000, 60_000)
    else:
        at = max(out.find(marker + b"\0") for marker in (b"\xff\xc0", b"\xff\xc2"))
        out[at + 5 : at + 9] = struct.pack(">HH", 60_000, 60_000)
    return bytes(out)


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("JPEG", {"exif": b"Exif\0\0" + bytes(300)}),
    ("JPEG2000", {}),
    ("JPEG2000", {"no_jp2": True}),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_sizes_are_found_wherever_they_stand(kind: str, options: dict[str, Any]) -> None:
    for values in (GREY, COLOUR):
        data = encoded(values, kind, **options)
        check_announced(data, 72, 48)
        for width, height in ((71, 48), (72, 47)):
            with pytest.raises(Undecodable, match="of another size than the file says"):
                check_announced(data, width, height)
    with pytest.raises(Undecodable):
        check_announced(encoded(GREY, "JPEG")[:40], 72, 48)


@pytest.mark.parametrize(("kind", "syntax"), [("JPEG", JPEGBaseline8Bit), ("JPEG2000", JPEG2000Lossless)])
def test_dicom_frames(tmp_path: Path, kind: str, syntax: UID) -> None:
    data = encoded(GREY, kind, **({"no_jp2": True} if kind == "JPEG2000" else {}))
    for frame in (data, grown(data)):
        saved = dicom(tmp_path / "a.dcm", GREY)
        saved.PixelData = encapsulate([frame])
        saved["PixelData"].is_undefined_length = True
        saved.file_meta.TransferSyntaxUID = syntax
        saved.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        if frame is data:
            assert only(tmp_path / "a.dcm").pixels.shape == (48, 72, 3)
    with pytest.raises(Undecodable, match="of another size than the file says"):
        only(tmp_path / "a.dcm")


def test_pieces_of_slides(tmp_path: Path) -> None:
    tiles = Tiles(side=32, tissue=0)
    for compression in ("jpeg", "jpeg2000"):
        slide(tmp_path / "a.tif", COLOUR, tile=(64, 64), compression=compression)
        assert len(pictures(tmp_path / "a.tif", tiles=tiles)) == 2
        (tmp_path / "a.tif").write_bytes(grown((tmp_path / "a.tif").read_bytes()))
        with pytest.raises(Undecodable, match="of another size than the file says"):
            pictures(tmp_path / "a.tif", tiles=tiles)
    slide(tmp_path / "a.tif", COLOUR, tile=(64, 64), compression="webp")
    with pytest.raises(Undecodable, match="compressed unusually; save it with LZW"):
        pictures(tmp_path / "a.tif", tiles=tiles)


def test_jpeg_ls(tmp_path: Path) -> None:
    imagecodecs: Any = pytest.importorskip("imagecodecs")
    saved = dicom(tmp_path / "a.dcm", GREY)
    saved.PixelData = encapsulate([imagecodecs.jpegls_encode(GREY)])
    saved["PixelData"].is_undefined_length = True
    saved.file_meta.TransferSyntaxUID = JPEGLSLossless
    saved.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(only(tmp_path / "a.dcm").pixels[..., 0], GREY)
    with pytest.raises(Undecodable):
        check_announced(imagecodecs.jpegls_encode(GREY), 71, 48)
