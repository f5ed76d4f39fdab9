"""DICOM as a viewer shows it: pydicom's own arithmetic and pixel arrays known by construction are the judges."""

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_rescale, apply_voi_lut
from pydicom.uid import UID, JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from fed_fsad.data.images import FileSource, to_unit
from fed_fsad.data.readers import dicom as reader
from fed_fsad.data.readers import open_file
from fed_fsad.data.readers.picture import Undecodable
from fed_fsad.data.settings import Reading
from fed_fsad.errors import DataError
from tests.data.files import COLOUR, GREY12, RNG, dicom, header, only, pictures

SIGNED = RNG.integers(-2000, 2000, (12, 9)).astype(np.int16)


def viewed(dataset: pydicom.Dataset) -> NDArray[Any]:
    """What pydicom shows, scaled to [0, 1] by the range that the standard gives the output."""
    values = apply_modality_lut(dataset.pixel_array, dataset)
    if dataset.PixelRepresentation:
        ends = np.array([-(2.0 ** (dataset.BitsStored - 1)), 2.0 ** (dataset.BitsStored - 1) - 1])
    else:
        ends = np.array([0, 2.0**dataset.BitsStored - 1])
    low, high = apply_rescale(ends, dataset)
    seen = np.asarray((apply_voi_lut(values, dataset) - low) / (high - low))
    return 1 - seen if dataset.PhotometricInterpretation == "MONOCHROME1" else seen


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("stored", [GREY12, SIGNED], ids=["unsigned", "signed"])
def test_the_files_window_after_rescaling(
    tmp_path: Path, stored: NDArray[Any], function: str | None, kind: str
) -> None:
    window = {"WindowCenter": [300, 5], "WindowWidth": [1200, 6]} | ({"VOILUTFunction": function} if function else {})
    saved = dicom(tmp_path / "a.dcm", stored, kind, 12, RescaleSlope=2, RescaleIntercept=-1024, **window)
    picture = only(tmp_path / "a.dcm")
    expected = viewed(saved)
    if function == "SIGMOID" and saved.PixelRepresentation:
        expected = expected - expected.min() + picture.pixels.min()  # pydicom adds y_min to a range that starts at it
    np.testing.assert_allclose(picture.pixels, expected, atol=2e-6)
    assert picture.window == (0, 1)


def test_by_percentile_when_asked_or_without_a_window(tmp_path: Path) -> None:
    plain = dicom(tmp_path / "plain.dcm", SIGNED, bits=16, RescaleSlope=0.5, RescaleIntercept=10)
    dicom(
        tmp_path / "windowed.dcm", SIGNED, bits=16, RescaleSlope=0.5, RescaleIntercept=10, WindowCenter=0, WindowWidth=9
    )
    expected = to_unit(apply_rescale(plain.pixel_array, plain), 16)
    for name, reading in (("plain.dcm", {}), ("windowed.dcm", {"window": "percentile"})):
        picture = only(tmp_path / name, **reading)
        np.testing.assert_allclose(to_unit(picture.pixels, 16, picture.window), expected, atol=1e-6)
    dicom(tmp_path / "empty.dcm", SIGNED, bits=16, RescaleSlope=0.5, RescaleIntercept=10, WindowCenter=0, WindowWidth=0)
    assert only(tmp_path / "empty.dcm").window is None


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_lookup_table_comes_before_a_window(tmp_path: Path, bits: int) -> None:
    table = pydicom.Dataset()
    entries = RNG.permutation(4096) % 2**bits
    table.LUTDescriptor = [4096, 0, bits]
    table.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    dicom(tmp_path / "a.dcm", GREY12, bits=12, VOILUTSequence=[table], WindowCenter=100, WindowWidth=50)
    np.testing.assert_allclose(only(tmp_path / "a.dcm").pixels, entries[GREY12] / (2**bits - 1), atol=1e-6)


def test_eight_bits_are_shown_as_a_png_of_them(tmp_path: Path) -> None:
    grey = COLOUR[..., 0]
    Image.fromarray(grey).save(tmp_path / "a.png")
    dicom(tmp_path / "a.dcm", grey)
    dicom(tmp_path / "inverted.dcm", 255 - grey, "MONOCHROME1")
    expected = FileSource(tmp_path / "a.png", None, tmp_path, True).image(24)
    for name in ("a.dcm", "inverted.dcm"):
        np.testing.assert_array_equal(FileSource(tmp_path / name, None, tmp_path, True).image(24), expected)
    dicom(tmp_path / "six.dcm", grey // 4, bits=6)
    np.testing.assert_array_equal(only(tmp_path / "six.dcm").pixels, grey // 4)
    assert only(tmp_path / "six.dcm").window == (0, 63)


def test_colour(tmp_path: Path) -> None:
    dicom(tmp_path / "rgb.dcm", COLOUR, "RGB")
    np.testing.assert_array_equal(only(tmp_path / "rgb.dcm").pixels, COLOUR)
    planes = dicom(tmp_path / "planes.dcm", COLOUR, "RGB")
    planes.PlanarConfiguration, planes.PixelData = 1, np.moveaxis(COLOUR, -1, 0).tobytes()
    planes.save_as(tmp_path / "planes.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(only(tmp_path / "planes.dcm").pixels, COLOUR)
    luminance = np.asarray(Image.fromarray(COLOUR).convert("YCbCr"))
    dicom(tmp_path / "ybr.dcm", luminance, "YBR_FULL")
    assert np.abs(only(tmp_path / "ybr.dcm").pixels.astype(int) - COLOUR).max() <= 3
    indexed = dicom(tmp_path / "palette.dcm", COLOUR[..., 0] % 4)
    indexed.PhotometricInterpretation = "PALETTE COLOR"
    palette = np.array([[0, 10, 20], [255, 3, 5], [7, 200, 9], [1, 2, 250]], np.uint8)
    for name, column in zip(("Red", "Green", "Blue"), palette.T, strict=True):
        setattr(indexed, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 8])
        setattr(indexed, f"{name}PaletteColorLookupTableData", column.tobytes())
    indexed.save_as(tmp_path / "palette.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(only(tmp_path / "palette.dcm").pixels, palette[COLOUR[..., 0] % 4])


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_pixels(tmp_path: Path, syntax: UID) -> None:
    grey, colour = np.tile(GREY12, (8, 8)), np.tile(COLOUR, (8, 8, 1))
    for name, stored, kind, bits in (("grey", grey, "MONOCHROME2", 12), ("rgb", colour, "RGB", 8)):
        saved = dicom(tmp_path / "plain.dcm", stored, kind, bits)
        saved.compress(syntax, generate_instance_uid=False)
        saved.save_as(tmp_path / f"{name}.dcm", enforce_file_format=True)
        expected = only(tmp_path / "plain.dcm").pixels
        np.testing.assert_array_equal(only(tmp_path / f"{name}.dcm").pixels, expected)


def test_lossy_jpeg(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.arange(0, 240, 10, dtype=np.uint8)[:, None], (24, 24)).copy()
    buffer = io.BytesIO()
    Image.fromarray(smooth).save(buffer, "JPEG", quality=95)
    saved = dicom(tmp_path / "a.dcm", smooth)
    saved.PixelData = encapsulate([buffer.getvalue()])
    saved["PixelData"].is_undefined_length = True
    saved.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    saved.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert np.abs(only(tmp_path / "a.dcm").pixels[..., 0].astype(int) - smooth).max() < 8


@pytest.mark.parametrize("axes", [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)])
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=2)))
def test_slices_are_hung_as_radiologists_do(tmp_path: Path, axes: tuple[int, int], signs: tuple[int, int]) -> None:
    """Each pixel's value tells where it lies in the patient: x to the left, y to the back, z to the head."""
    cosines = np.eye(3)[list(axes)] * np.array(signs)[:, None] + 0.05  # slightly oblique, as in a clinic
    rows, columns = np.mgrid[:12, :9]
    place = 200 + columns[..., None] * np.eye(3)[axes[0]] * signs[0] + rows[..., None] * np.eye(3)[axes[1]] * signs[1]
    stored = (place @ [1, 20, 400]).round().astype(np.uint32).astype(np.uint16)
    dicom(tmp_path / "a.dcm", stored, ImageOrientationPatient=[*map(float, cosines.ravel())], PixelSpacing=[3, 1])
    picture = only(tmp_path / "a.dcm")
    across, down = np.diff(picture.pixels.astype(float), axis=1), np.diff(picture.pixels.astype(float), axis=0)
    assert np.unique(across).tolist() == [1 if 0 in axes else 20]  # to the left; in side views to the back
    assert np.unique(down).tolist() == [-400 if 2 in axes else 20]  # to the feet; in axial slices to the back
    transposed = picture.pixels.shape == (9, 12)
    assert picture.aspect == (1 / 3 if transposed else 3)


def test_projections_are_mirrored_only_when_they_say_so(tmp_path: Path) -> None:
    for directions, expected in [
        (["L", "F"], GREY12), (["R", "F"], GREY12[:, ::-1]), (["R", "H"], GREY12[::-1, ::-1]), (["F", "L"], GREY12.T),
        (["A", "F"], GREY12), (["P", "L"], GREY12), ("", GREY12),
    ]:  # fmt: skip
        dicom(tmp_path / "a.dcm", GREY12, bits=12, PatientOrientation=directions)
        np.testing.assert_array_equal(only(tmp_path / "a.dcm").pixels, expected)


def test_a_mask_is_turned_with_its_image(tmp_path: Path) -> None:
    dicom(tmp_path / "a.dcm", GREY12, bits=12, ImageOrientationPatient=[0, -1, 0, 1, 0, 0])
    marked = np.zeros((12, 9), np.uint8)
    marked[2, 3] = 255
    Image.fromarray(marked).save(tmp_path / "m.png")
    source = FileSource(tmp_path / "a.dcm", tmp_path / "m.png", tmp_path, False, reading=Reading(fit="letterbox"))
    mask, picture = source.mask(12), only(tmp_path / "a.dcm")
    assert mask is not None
    assert picture.pixels.shape == (9, 12)
    top = (12 - 9) // 2
    (place,) = np.argwhere(mask)
    assert picture.pixels[place[0] - top, place[1]] == GREY12[2, 3]
    dicom(tmp_path / "m.dcm", marked)
    same = FileSource(tmp_path / "a.dcm", tmp_path / "m.dcm", tmp_path, False, reading=Reading(fit="letterbox"))
    np.testing.assert_array_equal(same.mask(12), mask)


FRAMES = np.stack([GREY12, GREY12 // 2, GREY12 * 3, GREY12 + 7, GREY12 // 5])


def test_frames_are_parts_and_share_their_percentiles(tmp_path: Path) -> None:
    dicom(tmp_path / "a.dcm", FRAMES)
    found = pictures(tmp_path / "a.dcm", slices="all")
    assert list(found) == [f"frame-{i:03}" for i in range(5)]
    np.testing.assert_array_equal(np.stack([picture.pixels for picture in found.values()]), FRAMES)
    assert {picture.window for picture in found.values()} == {tuple(np.percentile(FRAMES, (0.5, 99.5)))}
    assert list(pictures(tmp_path / "a.dcm")) == ["frame-002"]
    assert list(pictures(tmp_path / "a.dcm", slices="every 3")) == ["frame-000", "frame-003"]
    assert list(pictures(tmp_path / "a.dcm", slices="3-9")) == ["frame-003", "frame-004"]
    with pytest.raises(Undecodable, match=r"holds 5 slices or frames and none of 7-9; correct reading\.slices"):
        pictures(tmp_path / "a.dcm", slices="7-9")
    with pytest.raises(DataError, match=r"a\.dcm#frame-005: it has no part 'frame-005', only frame-000 to frame-004"):
        FileSource(tmp_path / "a.dcm", None, tmp_path, True, "frame-005").image(8)


def test_frames_with_windows_and_slopes_of_their_own(tmp_path: Path) -> None:
    def group(window: int, slope: int) -> pydicom.Dataset:
        item, view, values = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
        view.WindowCenter, view.WindowWidth, view.VOILUTFunction = 0, window, "LINEAR_EXACT"
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, 0, "US"
        item.FrameVOILUTSequence, item.PixelValueTransformationSequence = [view], [values]
        return item

    shared, spacing = pydicom.Dataset(), pydicom.Dataset()
    spacing.PixelSpacing, shared.PixelMeasuresSequence = [2, 4], [spacing]
    elements: dict[str, Any] = {
        "PerFrameFunctionalGroupsSequence": [group(10_000, i + 1) for i in range(5)],
        "SharedFunctionalGroupsSequence": [shared],
    }
    dicom(tmp_path / "a.dcm", FRAMES, **elements)
    for number, picture in enumerate(pictures(tmp_path / "a.dcm", slices="all").values()):
        expected = (FRAMES[number] * (number + 1) / 10_000 + 0.5).clip(0, 1)
        np.testing.assert_allclose(picture.pixels, expected, atol=1e-6)
        assert picture.aspect == 0.5


def test_padding_is_dark_and_does_not_move_the_percentiles(tmp_path: Path) -> None:
    stored = GREY12.astype(np.int16)
    stored[:4] = -3000
    for kind in ("MONOCHROME2", "MONOCHROME1"):
        dicom(tmp_path / "a.dcm", stored, kind, 16, PixelPaddingValue=-3000)
        pixels = only(tmp_path / "a.dcm").pixels
        inside = pixels[4:]
        assert np.unique(pixels[:4]).tolist() == [inside.min()]
        np.testing.assert_array_equal(inside, stored[4:] if kind == "MONOCHROME2" else -stored[4:].astype(float))


def without(name: str) -> pydicom.Dataset:
    dataset = header()
    dataset.set_pixel_data(FRAMES, "MONOCHROME2", 16)
    del dataset[name]
    return dataset


def changed(**elements: Any) -> pydicom.Dataset:
    dataset = header()
    dataset.set_pixel_data(FRAMES, "MONOCHROME2", 16)
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def pdf() -> pydicom.Dataset:
    return header(SOPClassUID=UID("1.2.840.10008.5.1.4.1.1.104.1"), EncapsulatedDocument=b"%PDF-1.4 ")


@pytest.mark.parametrize(
    ("dataset", "reason"),
    [
        (without("PixelData"), "holds no pixels or is cut off"),
        (pdf(), "holds a document"),
        (changed(PixelData=FRAMES.tobytes()[:-200]), "promises 5 frames and holds fewer"),
        (changed(NumberOfFrames=10**9), "promises 1000000000 frames and holds fewer"),
        (changed(Rows=40000, Columns=40000), "40000 x 40000 pixels"),
        (changed(Rows=1), "9 x 1 pixels"),
        (without("Rows"), "header is damaged"),
        (without("BitsAllocated"), "header is damaged"),
        (changed(PhotometricInterpretation="CMYK"), "neither grey nor colour"),
    ],
)
def test_what_is_refused_and_why(tmp_path: Path, dataset: pydicom.Dataset, reason: str) -> None:
    dataset.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(Undecodable, match=reason):
        pictures(tmp_path / "a.dcm")


def test_unknown_and_deflated_transfer_syntaxes(tmp_path: Path) -> None:
    saved = changed()
    saved.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    saved.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    saved.save_as(tmp_path / "deflated.dcm", enforce_file_format=True)
    with pytest.raises(Undecodable, match="deflated as a whole; save it as Explicit VR Little Endian"):
        pictures(tmp_path / "deflated.dcm")
    data = (tmp_path / "a.dcm").read_bytes()
    assert data.count(b"1.2.840.10008.1.2.1\0") == 1
    (tmp_path / "unknown.dcm").write_bytes(data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0"))
    with pytest.raises(Undecodable, match=r"damaged|not read \(1\.2\.840\.10008\.9\.9\.9\)"):
        pictures(tmp_path / "unknown.dcm")


def test_cut_off_at_any_byte(tmp_path: Path) -> None:
    for syntax in (None, RLELossless):
        saved = changed()
        if syntax:
            saved.compress(syntax, generate_instance_uid=False)
        saved.save_as(tmp_path / "a.dcm", enforce_file_format=True)
        data = (tmp_path / "a.dcm").read_bytes()
        for length in range(0, len(data), 41):
            (tmp_path / "cut.dcm").write_bytes(data[:length])
            with pytest.raises(Undecodable):
                pictures(tmp_path / "cut.dcm")


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dicom(tmp_path / "a.dcm", GREY12, bits=12)

    def missing(name: str) -> None:
        raise ImportError(name)

    with monkeypatch.context() as patch:
        patch.setattr("importlib.import_module", missing)
        with pytest.raises(DataError, match=r"^reading DICOM files needs pydicom: pip install 'fed-fsad\[medical\]'$"):
            pictures(tmp_path / "a.dcm")
    saved = dicom(tmp_path / "a.dcm", np.tile(GREY12, (8, 8)), bits=12)
    saved.compress(JPEG2000Lossless, generate_instance_uid=False)
    saved.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    decoder = get_decoder(JPEG2000Lossless)
    monkeypatch.setattr(decoder, "_available", {})
    assert not decoder.is_available
    with pytest.raises(DataError, match=r"compressed like these needs pylibjpeg: pip install") as caught:
        pictures(tmp_path / "a.dcm")
    assert not isinstance(caught.value, Undecodable)


def test_of_the_header_only_the_patient_id_is_looked_at_and_only_if_wanted(tmp_path: Path) -> None:
    dicom(tmp_path / "a.dcm", GREY12, bits=12)
    opened = open_file(tmp_path / "a.dcm", Reading())
    assert opened.patient == "MRN-4711"
    assert isinstance(opened, reader.Dicom)
    assert not {"PatientName", "PatientID", "StudyDate"} & set(opened._header.dir())
    assert open_file(tmp_path / "a.dcm", Reading(patients="unknown")).patient is None
    dicom(tmp_path / "a.dcm", GREY12, bits=12, PatientID=" ")
    assert open_file(tmp_path / "a.dcm", Reading()).patient is None
