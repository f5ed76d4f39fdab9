"""From the values stored in a DICOM file to those that a viewer shows: DICOM PS3.3, C.7.6.3, C.11.1 and C.11.2."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_fsad.data.readers.dicom_header import numbers
from fed_fsad.data.readers.files import extra
from fed_fsad.data.readers.picture import Pixels, Undecodable

MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
Shown = tuple[Pixels, tuple[float, float] | None]


def shown(stored: NDArray[Any], header: Any, window: str) -> Shown:
    """Stored values [H, W] or [H, W, 3] as pixels and the values that are black and white (see Picture.window).

    window: "file" or "percentile". Raises whatever pydicom raises about tables that contradict the pixels.
    """
    kind = header.PhotometricInterpretation
    if kind == "PALETTE COLOR":
        coloured = extra("pydicom.pixels", "DICOM files").apply_color_lut(stored, header)
        return _colour(coloured, 8 * coloured.dtype.itemsize)
    if stored.ndim == 3:
        return _colour(stored, int(header.BitsStored))
    if kind not in MONOCHROME:
        raise Undecodable(f"the DICOM's pixels are neither grey nor colour ({kind}); export it as MONOCHROME2 or RGB")
    return _grey(stored, header, window, inverted=kind == "MONOCHROME1")


def _colour(pixels: NDArray[Any], bits: int) -> Shown:
    if pixels.shape[2] != 3:
        raise Undecodable(f"the DICOM's pixels have {pixels.shape[2]} channels; export it as MONOCHROME2 or RGB")
    return (pixels, None) if pixels.dtype == np.uint8 else (pixels, (0.0, 2.0**bits - 1))


def _grey(stored: NDArray[Any], header: Any, window: str, inverted: bool) -> Shown:
    values = extra("pydicom.pixels", "DICOM files").apply_modality_lut(stored, header)
    seen = _by_file(values, header) if window == "file" else None
    limits: tuple[float, float] | None = (0.0, 1.0)
    if seen is None:
        seen = values.astype(np.float32)
        plain = stored.dtype == np.uint8 and np.array_equal(values, stored)
        limits = (0.0, 2.0**header.BitsStored - 1) if plain else None
    if inverted:
        seen = np.float32(sum(limits)) - seen if limits else -seen
    seen = _without_padding(seen, stored, header)
    if limits == (0, 255):  # as a PNG of these pixels would be read
        return np.repeat(seen.astype(np.uint8)[..., None], 3, axis=2), None
    return seen, limits


def _by_file(values: NDArray[Any], header: Any) -> NDArray[np.float32] | None:
    """Values in [0, 1] by the first lookup table or window of the file, or None when it has no valid one."""
    if "VOILUTSequence" in header and len(header.VOILUTSequence):
        return _by_table(values, header.VOILUTSequence[0])
    centre, width = numbers(header, "WindowCenter"), numbers(header, "WindowWidth")
    function = str(header.get("VOILUTFunction") or "LINEAR").upper()
    if not centre or not width or width[0] < (1 if function == "LINEAR" else np.finfo(np.float32).tiny):
        return None
    return _windowed(values.astype(np.float64), centre[0], width[0], function).astype(np.float32)


def _by_table(values: NDArray[Any], table: Any) -> NDArray[np.float32]:
    """PS3.3 C.11.2.1.1. pydicom's apply_voi wraps places beyond 255 when entries have 8 bits."""
    count, first, bits = (int(number) for number in table.LUTDescriptor)
    entries = table.LUTData
    listed = np.frombuffer(entries, "<u2") if isinstance(entries, bytes) else np.atleast_1d(entries)
    places = (np.rint(values).astype(np.int64) - first).clip(0, (count or 1 << 16) - 1)
    seen: NDArray[np.float32] = listed[places].astype(np.float32) / np.float32(2**bits - 1)
    return seen.clip(0, 1)


def _windowed(values: NDArray[np.float64], centre: float, width: float, function: str) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3 with an output of 0 to 1."""
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))))
    if function == "LINEAR":
        centre, width = centre - 0.5, width - 1
    if width == 0:
        return np.asarray(values > centre, dtype=np.float64)
    return np.asarray(((values - centre) / width + 0.5).clip(0, 1))


def _without_padding(seen: NDArray[np.float32], stored: NDArray[Any], header: Any) -> NDArray[np.float32]:
    """Pixels outside of what the scanner saw, as the file marks them, become as dark as the darkest other one."""
    first = numbers(header, "PixelPaddingValue")
    if not first:
        return seen
    last = numbers(header, "PixelPaddingRangeLimit") or first
    low, high = sorted((first[0], last[0]))
    outside = (stored >= low) & (stored <= high)
    return np.where(outside, seen[~outside].min(), seen) if outside.any() and not outside.all() else seen
