"""Small valid files of every kind that is read, to be damaged."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import tifffile
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from tests.data.files import COLOUR, GREY12, dicom, nifti, slide

BIG = np.tile(GREY12, (4, 4))
CSV = "path,split,label,categories,patient,mask,part\na.png,train,normal,,p1,,\nb.png,test,ill,x;y,p2,m.png,\n"


def valid_files(folder: Path) -> list[tuple[str, bytes]]:
    """(suffix, content) of every seed; `folder` is written to."""
    makers: list[tuple[str, Callable[[Path], Any]]] = [*_rasters(), *_dicoms(), *_volumes(), *_tables()]
    seeds = []
    for suffix, make in makers:
        path = folder / f"seed{suffix}"
        make(path)
        seeds.append((suffix, path.read_bytes()))
        path.unlink()
    return seeds


def _rasters() -> list[tuple[str, Callable[[Path], Any]]]:
    grey, alpha = COLOUR[..., 0], np.dstack([COLOUR, COLOUR[..., :1]])
    palette = Image.fromarray(grey // 64)
    palette.putpalette([10, 20, 30, 200, 100, 50, 5, 5, 5, 250, 0, 0])
    levels = np.tile(COLOUR, (4, 4, 1)), np.tile(COLOUR, (2, 2, 1))
    return [
        (".png", lambda path: Image.fromarray(COLOUR).save(path)),
        (".png", lambda path: Image.fromarray(alpha).save(path)),
        (".png", lambda path: Image.fromarray(GREY12).save(path)),
        (".png", lambda path: palette.save(path)),
        (".jpg", lambda path: Image.fromarray(COLOUR).save(path)),
        (".jpg", lambda path: Image.fromarray(grey).save(path, progressive=True)),
        (".tif", lambda path: Image.fromarray(COLOUR).save(path, compression="tiff_lzw")),
        (".tif", lambda path: tifffile.imwrite(path, GREY12, compression="zlib")),
        (".tif", lambda path: tifffile.imwrite(path, GREY12.astype(np.float64))),
        (".tif", lambda path: slide(path, *levels, compression="zlib")),
        (".tif", lambda path: slide(path, *levels, compression="jpeg")),
        (".tif", lambda path: slide(path, *levels, tile=None, rowsperstrip=9)),
    ]


def _dicoms() -> list[tuple[str, Callable[[Path], Any]]]:
    frames = np.stack([BIG, BIG + 1, BIG + 2])
    window: dict[str, Any] = {"WindowCenter": 900, "WindowWidth": 1000}
    table = pydicom.Dataset()
    table.LUTDescriptor = [4096, 0, 12]
    table.add_new("LUTData", "OW", np.arange(4096, dtype="<u2").tobytes())
    return [
        (
            ".dcm",
            lambda path: dicom(path, GREY12, bits=12, **window, PixelSpacing=[1, 2], PatientOrientation=["R", "F"]),
        ),
        (
            ".dcm",
            lambda path: dicom(path, GREY12.view(np.int16), RescaleSlope=2, RescaleIntercept=-9, PixelPaddingValue=3),
        ),
        (".dcm", lambda path: dicom(path, GREY12, bits=12, VOILUTSequence=[table])),
        (".dcm", lambda path: dicom(path, frames, "MONOCHROME1", 12, PerFrameFunctionalGroupsSequence=_frames(3))),
        (".dcm", lambda path: dicom(path, COLOUR, "YBR_FULL")),
        (".dcm", lambda path: _compressed(path, BIG, RLELossless)),
        (".dcm", lambda path: _compressed(path, BIG, JPEG2000Lossless)),
        (".dcm", lambda path: _compressed(path, frames, JPEG2000Lossless)),
        (".dcm", _jpeg),
    ]


def _frames(count: int) -> list[pydicom.Dataset]:
    groups = []
    for number in range(count):
        item, view, plane = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        view.WindowCenter, view.WindowWidth = number, 500
        plane.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        item.FrameVOILUTSequence, item.PlaneOrientationSequence = [view], [plane]
        groups.append(item)
    return groups


def _compressed(path: Path, stored: np.ndarray[Any, Any], syntax: str) -> None:
    saved = dicom(path, stored, bits=12)
    saved.compress(syntax, generate_instance_uid=False)
    saved.save_as(path, enforce_file_format=True)


def _jpeg(path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR[..., 0]).save(buffer, "JPEG")
    saved = dicom(path, COLOUR[..., 0])
    saved.PixelData = encapsulate([buffer.getvalue()])
    saved["PixelData"].is_undefined_length = True
    saved.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    saved.save_as(path, enforce_file_format=True)


def _volumes() -> list[tuple[str, Callable[[Path], Any]]]:
    volume = np.stack([GREY12] * 9, axis=-1).astype(np.int16)
    turned = np.array([[0, -2, 0, 5], [1, 0, 0, 7], [0, 0, 3, -9], [0, 0, 0, 1.0]])
    return [
        (".nii", lambda path: nifti(path, volume, turned, cal_min=10, cal_max=900)),
        (".nii", lambda path: nifti(path, volume.astype(np.float32))),
        (".nii.gz", lambda path: nifti(path, volume, turned)),
    ]


def _tables() -> list[tuple[str, Callable[[Path], Any]]]:
    return [
        (".csv", lambda path: path.write_text(CSV)),
        (
            ".csv",
            lambda path: path.write_bytes(b"\xef\xbb\xbf" + CSV.replace(",", ";").replace("x;y", '"x|y"').encode()),
        ),
    ]
