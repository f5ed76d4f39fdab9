"""Files of every kind that is read, opened by what is in them."""

from pathlib import Path

from fed_fsad.data.readers.dicom import Dicom
from fed_fsad.data.readers.files import first_bytes
from fed_fsad.data.readers.nifti import Nifti
from fed_fsad.data.readers.picture import Opened, Undecodable
from fed_fsad.data.readers.raster import TIFF_STARTS, Raster
from fed_fsad.data.readers.slides import Slide
from fed_fsad.data.settings import Reading

RASTER = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
MEDICAL = (".dcm", ".dicom", ".ima", ".nii", ".nii.gz")
SUFFIXES = RASTER + MEDICAL
GZIP = b"\x1f\x8b"
NIFTI_SIZES = (348, 540)
"""Bytes of a NIfTI header, which stand at its start."""


def open_file(path: Path, reading: Reading) -> Opened:
    """The reader for a file's content, whatever its name.

    Raises Undecodable when the file cannot serve, DataError when it may not be read or a package is missing.
    """
    start = first_bytes(path)
    if is_dicom(start):
        return Dicom(path, reading)
    if start.startswith(GZIP) or any(int.from_bytes(start[:4], order) in NIFTI_SIZES for order in ("little", "big")):
        return Nifti(path, reading)
    if reading.tiles is not None and start.startswith(TIFF_STARTS):
        return Slide(path, reading.tiles)
    if path.name.lower().endswith(MEDICAL):
        raise Undecodable("the file is damaged or not what its name says; replace or remove it")
    return Raster(path)


def is_dicom(start: bytes) -> bool:
    """Whether a file that starts so is DICOM, as hospitals often store it: without any suffix."""
    return start[128:132] == b"DICM"


def bare_name(name: str) -> str:
    """A file's name without the suffix of its kind; "a.nii.gz" is "a"."""
    suffix = max((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), key=len, default="")
    return name.removesuffix(name[len(name) - len(suffix) :])
