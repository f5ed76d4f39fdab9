"""What is looked at in a DICOM header: how pixels are stored, shown, spaced and turned, and the patient id."""

from typing import Any

import numpy as np

from fed_fsad.data.readers.files import extra

STORED = (
    "SOPClassUID", "PatientID", "Rows", "Columns", "NumberOfFrames", "PlanarConfiguration", "PixelData",
    "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
SHOWN = (
    "PhotometricInterpretation", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelPaddingValue", "PixelPaddingRangeLimit",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence",
    "RedPaletteColorLookupTableDescriptor", "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData", "SegmentedRedPaletteColorLookupTableData",
    "SegmentedGreenPaletteColorLookupTableData", "SegmentedBluePaletteColorLookupTableData",
    "ImageOrientationPatient", "PatientOrientation", "PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio",
)  # fmt: skip
IMAGE_TAGS = STORED + SHOWN
GROUPS = (
    "PixelValueTransformationSequence", "FrameVOILUTSequence", "PlaneOrientationSequence", "PixelMeasuresSequence",
)  # fmt: skip
"""Where enhanced multi-frame files keep the same elements, for all frames or for each."""
MOST_UNEVEN = 50
"""A pixel this many times as high as wide, or as wide as high, is taken for a mistake."""
AXES = {"L": 0, "R": 0, "P": 1, "A": 1, "F": 2, "H": 2}
UPRIGHT = {(False, False, False): 1, (False, False, True): 2, (False, True, True): 3, (False, True, False): 4,
           (True, False, False): 5, (True, False, True): 6, (True, True, True): 7, (True, True, False): 8}  # fmt: skip
"""(rows and columns swapped, then rows reversed, then columns reversed) to the EXIF orientation that this undoes."""


def frame_header(header: Any, number: int) -> Any:
    """The elements SHOWN that hold for one frame: its own before those of all frames before the file's."""
    frame = extra("pydicom", "DICOM files").Dataset()
    own = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    groups = [
        holder[name].value for holder in (*shared, *own[number : number + 1]) for name in GROUPS if name in holder
    ]
    for item in (header, *(group[0] for group in groups if group)):
        for name in SHOWN:
            if name in item:
                frame.add(item[name])
    return frame


def numbers(header: Any, name: str) -> list[float]:
    """The finite numbers of an element of any multiplicity; empty when it is missing or holds anything else."""
    try:
        value = header.get(name)
        found = [float(number) for number in (value if hasattr(value, "__iter__") else [value])]
    except (TypeError, ValueError):
        return []
    return found if np.isfinite(found).all() else []


def aspect_of(header: Any, turned: int) -> float:
    """A shown pixel's height over its width; 1 when the file does not say."""
    for name in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        spacing = numbers(header, name)
        if len(spacing) == 2 and min(spacing) > 0 and max(spacing) / min(spacing) <= MOST_UNEVEN:
            return spacing[0] / spacing[1] if turned <= 4 else spacing[1] / spacing[0]
    return 1.0


def turn_of(header: Any) -> int:
    """The EXIF orientation that makes a picture lie as radiologists hang it (ours).

    Columns run to the patient's left, in side views to the back; rows to the feet, in axial slices to the back. Taken
    from ImageOrientationPatient, or from PatientOrientation for frontal projections; others stay as they are stored.
    """
    columns, rows = _directions(header)
    if columns is None or rows is None or AXES[columns] == AXES[rows]:
        return 1
    swapped = AXES[columns] > AXES[rows]
    if swapped:
        columns, rows = rows, columns
    return UPRIGHT[swapped, rows not in "PF", columns not in "LP"]


def _directions(header: Any) -> tuple[str | None, str | None]:
    """Where columns and rows run to, as letters of AXES."""
    cosines = numbers(header, "ImageOrientationPatient")
    if len(cosines) == 6:
        return _letter(cosines[:3]), _letter(cosines[3:])
    letters = [str(value)[:1] for value in header.get("PatientOrientation") or []]
    if len(letters) == 2 and {AXES.get(letter) for letter in letters} == {0, 2}:
        return letters[0], letters[1]
    return None, None


def _letter(cosines: list[float]) -> str | None:
    axis = int(np.argmax(np.abs(cosines)))
    return ("LR", "PA", "HF")[axis][int(cosines[axis] < 0)] if any(cosines) else None
