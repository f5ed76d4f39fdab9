"""DICOM files: one image or several frames, shown as a viewer would show them."""

import logging
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_fsad.data.readers.codestream import check_announced
from fed_fsad.data.readers.dicom_header import IMAGE_TAGS, aspect_of, frame_header, turn_of
from fed_fsad.data.readers.dicom_values import shown
from fed_fsad.data.readers.files import MAX_BYTES, check_file, extra, needs_extra
from fed_fsad.data.readers.picture import (
    WHOLE,
    Opened,
    Picture,
    Pixels,
    Undecodable,
    check_finite,
    check_size,
    damaged,
    limits_of,
    number_of,
    pick,
    spread,
    step_of,
    upright,
)
from fed_fsad.data.settings import Reading
from fed_fsad.errors import DataError

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
DOCUMENT = "1.2.840.10008.5.1.4.1.1.104."
"""Start of the SOP classes of encapsulated documents: PDF, CDA and their like."""
DEFLATED = "1.2.840.10008.1.2.1.99"
RLE = "1.2.840.10008.1.2.5"
"""Decoded by pydicom itself: the faster plug-in panics on damaged runs."""
CUT_OFF = "the DICOM's pixels are damaged or cut off; export it again"
logging.getLogger("pydicom").addHandler(logging.NullHandler())  # damaged files are told by Undecodable, once


class Dicom(Opened):
    """A DICOM file. Raises Undecodable when it holds no image, DataError when pydicom is missing."""

    def __init__(self, path: Path, reading: Reading) -> None:
        super().__init__(path)
        self._reading = reading
        self._header = _parsed(path)
        with damaged("the DICOM's header is damaged; export it again"):
            self._frames = _frames(self._header)
            if reading.patients == "header":
                self.patient = str(self._header.get("PatientID") or "").strip() or None
        self._header.pop("PatientID", None)

    def pictures(self) -> Iterator[tuple[str, Picture]]:
        """The image, or the frames that `reading.slices` chooses."""
        if self._frames == 1:
            yield WHOLE, self.picture(WHOLE)
            return
        for number in pick(self._reading.slices, self._frames):
            part = f"frame-{number:03}"
            yield part, self.picture(part)

    def picture(self, part: str) -> Picture:
        """A frame as a viewer shows it; frames without a window in the file share their percentiles."""
        number = self._number(part)
        with damaged("the DICOM's header or tables contradict its pixels; export it again"):
            header = frame_header(self._header, number)
            pixels, window = self._shown(number)
            if window is None and pixels.ndim == 2 and self._frames > 1:
                window = self._shared
            turned = turn_of(header)
            return Picture(upright(pixels, turned), window, aspect_of(header, turned), turned)

    def marks(self, part: str) -> Pixels:
        """The stored values, as they lie in the file."""
        return self._stored(self._number(part))

    @cached_property
    def _shared(self) -> tuple[float, float]:
        step = step_of(int(self._header.Columns), int(self._header.Rows))
        some = (self._shown(number) for number in spread(self._frames))
        return limits_of(np.stack([pixels[::step, ::step] for pixels, window in some if window is None]))

    def _number(self, part: str) -> int:
        return 0 if part == WHOLE and self._frames == 1 else number_of(part, "frame", self._frames)

    def _stored(self, number: int) -> NDArray[Any]:
        decode = extra("pydicom.pixels", "DICOM files").pixel_array
        plugin = "pydicom" if self._header.file_meta.TransferSyntaxUID == RLE else ""
        with damaged(CUT_OFF):
            self._check_announced(number)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                stored: NDArray[Any] = decode(self._header, index=number, decoding_plugin=plugin)
        except Exception as error:  # decoders raise any type on damaged bytes
            raise _why(self._header) from error
        return stored

    def _check_announced(self, number: int) -> None:
        header = self._header
        if not header.file_meta.TransferSyntaxUID.is_compressed:
            return
        table = header.get("ExtendedOffsetTable"), header.get("ExtendedOffsetTableLengths")
        data = extra("pydicom.encaps", "DICOM files").get_frame(
            header.PixelData,
            number,
            number_of_frames=self._frames,
            extended_offsets=None if None in table else table,
        )
        check_announced(data, header.Columns, header.Rows)

    def _shown(self, number: int) -> tuple[Pixels, tuple[float, float] | None]:
        pixels, window = shown(self._stored(number), frame_header(self._header, number), self._reading.window)
        check_finite(pixels)
        return pixels, window


def _parsed(path: Path) -> Any:
    """The tags that are needed, and no other one, as a pydicom Dataset."""
    check_file(path, MAX_BYTES)
    reader = extra("pydicom.filereader", "DICOM files")
    with damaged("the file is damaged or no DICOM file; replace or remove it"):
        if reader.read_file_meta_info(path).get("TransferSyntaxUID") == DEFLATED:
            raise Undecodable("the DICOM is deflated as a whole; save it as Explicit VR Little Endian")
        return reader.dcmread(path, specific_tags=list(IMAGE_TAGS))


def _frames(header: Any) -> int:
    """How many frames there are. Raises Undecodable when the header promises what the file does not hold."""
    if str(header.get("SOPClassUID", "")).startswith(DOCUMENT):
        raise Undecodable("the DICOM holds a document (such as a PDF) and no image; remove it")
    if not any(name in header for name in PIXELS):
        raise Undecodable("the DICOM holds no pixels or is cut off before them; export it again or remove it")
    check_size(int(header.Columns), int(header.Rows))
    frames = int(header.get("NumberOfFrames") or 1)
    if frames < 1 or frames > _held(header):
        raise Undecodable(f"the DICOM promises {frames} frames and holds fewer; export it again")
    return frames


def _held(header: Any) -> int:
    """The most frames that the stored bytes can be."""
    (stored,) = (header[name].value for name in PIXELS if name in header)
    if header.file_meta.TransferSyntaxUID.is_compressed:
        return int(extra("pydicom.encaps", "DICOM files").parse_fragments(stored)[0]) - 1  # the first is an index
    samples = 2 if header.PhotometricInterpretation == "YBR_FULL_422" else header.SamplesPerPixel
    return len(stored) * 8 // int(header.Columns * header.Rows * samples * header.BitsAllocated)


def _why(header: Any) -> DataError:
    """Why a frame could not be decoded; a codec that is not installed stops the run instead of skipping every file."""
    syntax = header.file_meta.TransferSyntaxUID
    try:
        if not extra("pydicom.pixels", "DICOM files").get_decoder(syntax).is_available:
            return needs_extra("DICOM files that are compressed like these", "pylibjpeg")
    except NotImplementedError:
        return Undecodable(f"its pixels are stored in a way that is not read ({syntax}); save it uncompressed")
    return Undecodable(CUT_OFF)
