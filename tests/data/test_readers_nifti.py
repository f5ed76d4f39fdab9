"""NIfTI slices: nibabel's own closest canonical orientation is the judge."""

import gzip
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fed_fsad.data.images import FileSource, to_unit
from fed_fsad.data.readers import nifti as reader
from fed_fsad.data.readers.picture import Undecodable, step_of
from fed_fsad.data.settings import Reading
from fed_fsad.errors import DataError
from tests.data.files import RNG, nib, nifti, only, pictures

VOLUME = RNG.integers(-500, 2000, (9, 11, 13)).astype(np.int16)
TURNS = [(order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)]


def affine(order: tuple[int, ...], flips: tuple[int, ...], sizes: tuple[float, ...] = (1, 2, 3)) -> np.ndarray:
    """Axis i of the array runs along axis order[i] of the patient, forwards or backwards."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3)[:, list(order)] * np.array(flips) * np.array(sizes)
    matrix[:3, 3] = [5, -7, 11]
    return matrix


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(("order", "flips"), TURNS)
def test_any_orientation_is_turned_to_ras(
    tmp_path: Path, order: tuple[int, ...], flips: tuple[int, ...], suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    canonical = nib.as_closest_canonical(nifti(path, VOLUME, affine(order, flips))).get_fdata()
    for axis, name in enumerate(("sagittal", "coronal", "axial")):
        found = pictures(path, axis=name, slices="all")
        assert list(found) == [f"{name}-{i:03}" for i in range(canonical.shape[axis])]
        for number, picture in enumerate(found.values()):
            plane = canonical.take(number, axis)  # right or front, then front or head
            np.testing.assert_array_equal(picture.pixels, plane.T[::-1, ::-1])


def test_slices_keep_the_proportions_of_the_patient(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii", VOLUME, affine((1, 2, 0), (1, -1, 1), (4, 2, 3)))  # front 4 mm, head 2 mm, right 3 mm
    aspects = {axis: only(tmp_path / "a.nii", axis=axis).aspect for axis in ("axial", "coronal", "sagittal")}
    assert aspects == pytest.approx({"axial": 4 / 3, "coronal": 2 / 3, "sagittal": 2 / 4})


def test_slope_and_windows(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    image = nib.Nifti1Image(VOLUME, np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, path)
    values = nib.load(path).get_fdata()
    picture = only(path)
    np.testing.assert_allclose(picture.pixels, values[:, :, 6].T[::-1, ::-1])
    assert picture.window == pytest.approx(tuple(np.percentile(values, (0.5, 99.5))))
    nifti(path, VOLUME, cal_min=-100, cal_max=300)
    picture = only(path)
    assert picture.window == (-100, 300)
    expected = ((VOLUME[:, :, 6].T[::-1, ::-1] + 100) / 400).clip(0, 1)
    np.testing.assert_allclose(to_unit(picture.pixels[:9, :9], 9, picture.window)[0], expected[:9, :9], atol=1e-6)
    assert only(path, window="percentile").window == pytest.approx(tuple(np.percentile(VOLUME, (0.5, 99.5))))


def test_all_slices_are_shown_in_one_window_whatever_the_axis(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    nifti(path, VOLUME)
    shown = [pictures(path, axis=axis, slices="all") for axis in ("axial", "coronal", "sagittal")]
    assert len({picture.window for found in shown for picture in found.values()}) == 1


def test_a_single_slice_lies_as_it_lies(tmp_path: Path) -> None:
    nifti(tmp_path / "flat.nii", VOLUME[:, :, 0])
    np.testing.assert_array_equal(only(tmp_path / "flat.nii").pixels, VOLUME[:, :, 0].T[::-1, ::-1])
    nifti(tmp_path / "side.nii", VOLUME[:1])
    assert list(pictures(tmp_path / "side.nii")) == ["sagittal-000"]
    nifti(tmp_path / "four.nii", VOLUME[..., None])
    assert only(tmp_path / "four.nii").pixels.shape == (11, 9)


def test_a_mask_must_lie_on_its_image(tmp_path: Path) -> None:
    place = affine((1, 2, 0), (1, -1, 1))
    nifti(tmp_path / "a.nii.gz", VOLUME, place)
    marked = np.zeros(VOLUME.shape, np.uint8)
    marked[3, 4, 5] = 1
    nifti(tmp_path / "m.nii.gz", marked, place)
    turned = nib.as_closest_canonical(nib.load(tmp_path / "m.nii.gz"))
    nib.save(turned, tmp_path / "turned.nii.gz")  # the same places, stored in another order
    z = int(np.argwhere(turned.get_fdata())[0, 2])
    for mask in ("m.nii.gz", "turned.nii.gz"):
        for number in (z, z + 1):
            source = FileSource(tmp_path / "a.nii.gz", tmp_path / mask, tmp_path, False, f"axial-{number:03}")
            shown = source.mask(18)
            assert shown is not None
            assert shown.any() == (number == z)
    moved = place.copy()
    moved[0, 3] += 1
    nifti(tmp_path / "moved.nii.gz", marked, moved)
    nifti(tmp_path / "small.nii.gz", marked[:-1], place)
    for mask, reason in (("moved", "lies elsewhere than its image"), ("small", "pixels but its image")):
        source = FileSource(tmp_path / "a.nii.gz", tmp_path / f"{mask}.nii.gz", tmp_path, False, f"axial-{z:03}")
        with pytest.raises(DataError, match=rf"mask {mask}\.nii\.gz .*{reason}"):
            source.mask(18)


def test_a_volume_is_unpacked_once_for_its_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nifti(tmp_path / "a.nii.gz", VOLUME)
    loads: list[Path] = []
    load = reader._load

    def counted(path: Path) -> Any:
        loads.append(path)
        return load(path)

    monkeypatch.setattr(reader, "_load", counted)
    for number in range(5):
        FileSource(tmp_path / "a.nii.gz", None, tmp_path, True, f"axial-{number:03}").image(16)
    assert len(loads) == 1
    nifti(tmp_path / "a.nii.gz", VOLUME[::-1, :, :12])
    changed = FileSource(tmp_path / "a.nii.gz", None, tmp_path, True, "axial-000").image(16)
    assert len(loads) == 2
    np.testing.assert_array_equal(changed, to_unit(*_seen(tmp_path / "a.nii.gz")))


def _seen(path: Path) -> tuple[np.ndarray, int, tuple[float, float] | None]:
    picture = pictures(path, slices="all")["axial-000"]
    return picture.pixels, 16, picture.window


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.where(np.arange(13) == 6, np.nan, VOLUME).astype(np.float32), "values that are no numbers"),
        (np.full((9, 11, 13), np.inf, np.float32), "values that are no numbers"),
        (np.zeros((9, 11, 13, 4), np.int16), r"has 4 axes \(9 x 11 x 13 x 4\); save one volume per file"),
        (np.zeros((9, 11, 13), np.complex64), "colours or complex numbers"),
        (np.zeros((9, 11, 13), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "colours or complex numbers"),
        (np.zeros((1, 40, 1), np.int16), "1 x 40 pixels"),
        (np.zeros((7, 40, 13), np.int16), "7 x 40 pixels"),
    ],
)  # fmt: skip
def test_what_is_refused_and_why(tmp_path: Path, values: np.ndarray, reason: str) -> None:
    nifti(tmp_path / "a.nii", values)
    with pytest.raises(Undecodable, match=reason):
        pictures(tmp_path / "a.nii")


def test_headers_that_promise_too_much(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii", VOLUME)
    data = (tmp_path / "a.nii").read_bytes()
    for shape, reason in [((30000, 30000, 2), "larger than 1024 MiB"), ((2000, 2000, 20), "less than its header")]:
        large = bytearray(data)
        large[42:48] = np.array(shape, "<i2").tobytes()
        (tmp_path / "a.nii").write_bytes(large)
        with pytest.raises(Undecodable, match=reason):
            pictures(tmp_path / "a.nii")


def test_cut_off_or_misnamed(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii", VOLUME)
    data = (tmp_path / "a.nii").read_bytes()
    for name, whole in (("cut.nii", data), ("cut.nii.gz", gzip.compress(data))):
        for length in range(0, len(whole), 173):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(Undecodable):
                pictures(tmp_path / name)
    (tmp_path / "a.img").write_bytes(data)
    with pytest.raises(Undecodable, match=r"looks like a NIfTI volume under another name; call it \.nii"):
        pictures(tmp_path / "a.img")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nifti(tmp_path / "a.nii", VOLUME)

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", missing)
    with pytest.raises(DataError, match=r"^reading NIfTI files needs nibabel: pip install 'fed-fsad\[medical\]'$"):
        pictures(tmp_path / "a.nii")


def test_settings_of_slices_are_checked() -> None:
    for wrong in ("first", "every 0", "3-", "-1", "all slices"):
        with pytest.raises(
            ValueError, match=r"slices .* is unknown; write middle, all, every 5 \(any number\) or 40-80"
        ):
            Reading(slices=wrong)


def test_percentiles_of_large_slices_are_taken_from_a_part_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (step_of(1024, 1024), step_of(1025, 1024), step_of(7000, 7000)) == (1, 2, 7)
    monkeypatch.setattr("fed_fsad.data.readers.picture.MOST_SEEN", 16 * 9 * 11 // 4)
    nifti(tmp_path / "a.nii", VOLUME)
    expected = np.percentile(VOLUME[::2, ::2], (0.5, 99.5))
    assert only(tmp_path / "a.nii").window == pytest.approx(tuple(expected))
