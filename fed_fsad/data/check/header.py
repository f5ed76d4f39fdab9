"""Whether a DICOM header tells more than pixels need."""

import warnings
from pathlib import Path

from fed_fsad.data.readers import is_dicom
from fed_fsad.data.readers.files import extra, first_bytes

NAMING = (
    "PatientName",
    "PatientBirthDate",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "OtherPatientIDs",
    "OtherPatientNames",
    "ReferringPhysicianName",
    "InstitutionName",
)
"""Tags that name a person or a place; a part of what DICOM PS3.15 Annex E lists."""


def identifies(path: Path) -> bool:
    """True for a DICOM file with private tags or with a filled tag of NAMING. Of the header nothing is kept.

    A header that cannot be read to its end counts too, because nobody knows what stands in it.
    """
    if not is_dicom(first_bytes(path)):
        return False
    read = extra("pydicom", "DICOM files").dcmread
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = read(path, stop_before_pixels=True)
            named = any(str(header.get(name) or "").strip() for name in NAMING)
            return named or any(tag.is_private for tag in header.keys())  # noqa: SIM118 - values would be parsed
    except Exception:  # the parser raises any type on damaged bytes
        return True
