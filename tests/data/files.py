"""Small files of every kind, made by the libraries that own the formats."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import tifffile
from numpy.typing import NDArray
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from fed_fsad.data.readers import open_file
from fed_fsad.data.readers.picture import Picture
from fed_fsad.data.settings import Reading

nib: Any = pytest.importorskip("nibabel")  # of any type: it is annotated in part
RNG = np.random.default_rng(0)
GREY12 = RNG.integers(0, 4096, (12, 9)).astype(np.uint16)
COLOUR = RNG.integers(0, 256, (12, 9, 3), dtype=np.uint8)


def header(**elements: Any) -> pydicom.Dataset:
    """A DICOM data set without pixels; `elements` by their keywords."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, generate_uid(entropy_srcs=["test"])
    dataset.PatientName, dataset.PatientID, dataset.StudyDate = "Doe^Jane", "MRN-4711", "20200102"
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def dicom(
    path: Path, stored: NDArray[Any], kind: str = "MONOCHROME2", bits: int | None = None, **elements: Any
) -> pydicom.Dataset:
    """Save `stored` ([H, W], [N, H, W], or with 3 channels last) as DICOM; the data set that was saved."""
    dataset = header()
    dataset.set_pixel_data(stored, kind, bits or 8 * stored.dtype.itemsize)
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)
    return dataset


def nifti(path: Path, values: NDArray[Any], affine: NDArray[Any] | None = None, **fields: Any) -> Any:
    """Save a volume; `fields` of its header by name."""
    image = nib.Nifti1Image(values, np.eye(4) if affine is None else affine)
    for name, value in fields.items():
        image.header[name] = value
    nib.save(image, path)
    return image


def slide(path: Path, *levels: NDArray[Any], **options: Any) -> Path:
    """Save a tiled pyramid, each level a page of its own; options of tifffile.imwrite."""
    with tifffile.TiffWriter(path) as tiff:
        for level in levels:
            kind = "rgb" if level.ndim == 3 else "minisblack"
            tiff.write(level, **{"tile": (16, 32), "photometric": kind, "metadata": None, **options})
    return path


def pictures(path: Path, **reading: Any) -> dict[str, Picture]:
    """What a file holds: part to picture."""
    return dict(open_file(path, Reading(**reading)).pictures())


def only(path: Path, **reading: Any) -> Picture:
    """The one picture of a file."""
    (picture,) = pictures(path, **reading).values()
    return picture
