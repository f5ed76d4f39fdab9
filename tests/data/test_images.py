"""Pixels as the methods see them: the plain resize, the window of deep images, masks, and files that fail."""

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from fed_fsad.data.images import FileSource, letterbox, read_images, to_mask, to_unit
from fed_fsad.data.readers import files
from fed_fsad.data.readers.picture import Picture
from fed_fsad.data.settings import Reading
from fed_fsad.errors import DataError

RNG = np.random.default_rng(1)


def lanczos(row: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """One row resized from the formula: the windowed sinc of three lobes, stretched when shrinking."""
    scale = max(len(row) / size, 1.0)
    out = np.zeros(size)
    for i in range(size):
        centre = (i + 0.5) * len(row) / size
        left, right = max(int(centre - 3 * scale + 0.5), 0), min(int(centre + 3 * scale + 0.5), len(row))
        weights = []
        for j in range(left, right):
            x = math.pi * (j + 0.5 - centre) / scale
            near = abs(x) < 3 * math.pi
            weights.append(1.0 if x == 0 else 3 * math.sin(x) * math.sin(x / 3) / x**2 if near else 0.0)
        out[i] = np.dot(weights, row[left:right]) / sum(weights)
    return out


@pytest.mark.parametrize("size", [5, 24])
def test_resize_is_lanczos_to_a_square_without_keeping_the_aspect(size: int) -> None:
    values = RNG.random((9, 14)).astype(np.float32)
    values[:, :2], values[:, 2:4] = 0, 1  # the window's percentiles are 0 and 1: it changes nothing
    rows = np.array([lanczos(row, size) for row in values.astype(np.float64)])
    expected = np.array([lanczos(column, size) for column in rows.T]).T.clip(0, 1)
    image = to_unit(values, size)
    assert image.shape == (3, size, size)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[1], expected, atol=1e-5)
    in_bytes = np.repeat((values * 255).round().astype(np.uint8)[..., None], 3, -1)
    between = np.array([lanczos(column, size) for column in rows.clip(0, 1).T]).T.clip(0, 1)  # bytes cannot overshoot
    np.testing.assert_allclose(to_unit(in_bytes, size)[2], between, atol=2.5 / 255)


def test_channels_stay_apart() -> None:
    colour = np.zeros((10, 10, 3), np.uint8)
    colour[..., 0], colour[..., 1] = 255, 51
    np.testing.assert_allclose(to_unit(colour, 4).mean((1, 2)), [1, 0.2, 0], atol=1e-6)
    deep = colour.astype(np.uint16) * 100
    np.testing.assert_allclose(to_unit(deep, 4).mean((1, 2)), [1, 0.2, 0], atol=1e-5)


def test_twelve_bits_in_sixteen_are_not_black() -> None:
    values = RNG.integers(0, 4096, (64, 64)).astype(np.uint16)
    values[0, 0] = 65535  # a hot pixel must not darken the rest
    image = to_unit(values, 64)
    low, high = np.percentile(values, (0.5, 99.5))
    np.testing.assert_allclose(image[0], np.clip((values - low) / (high - low), 0, 1), atol=1e-6)
    assert 0.45 < image.mean() < 0.55


def test_flat_and_nearly_flat_deep_images() -> None:
    flat = np.full((30, 30), 700, np.int16)
    assert not to_unit(flat, 8).any()
    flat[3, 4], flat[7, 8] = 900, 800  # two pixels of 900 lie beyond both percentiles
    shown = to_unit(flat, 30)[0]
    assert (shown[3, 4], shown[7, 8], shown.sum()) == (1, 0.5, 1.5)
    assert np.isfinite(to_unit(np.array([[-1e300, 1e300]] * 9), 8)).all()


def test_a_mask_is_every_pixel_that_is_not_zero() -> None:
    values = np.zeros((8, 8, 3), np.uint8)
    values[2, 3, 1], values[5, 6, 2] = 1, 255
    expected = np.zeros((8, 8), bool)
    expected[2, 3] = expected[5, 6] = True
    np.testing.assert_array_equal(to_mask(values, 8), expected)
    np.testing.assert_array_equal(to_mask(values, 16), np.kron(expected, np.ones((2, 2), bool)))
    np.testing.assert_array_equal(to_mask(values[..., 1].astype(np.float32), 8), expected & (np.arange(8) == 3))


def save(path: Path, values: NDArray[Any], **options: Any) -> Path:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG", **options)
    path.write_bytes(buffer.getvalue())
    return path


def test_a_source_reads_its_image_and_mask(tmp_path: Path) -> None:
    grey = RNG.integers(0, 256, (10, 20), dtype=np.uint8)
    path = save(tmp_path / "a.png", grey)
    normal, unmarked = FileSource(path, None, tmp_path, True), FileSource(path, None, tmp_path, False)
    assert normal.name == "a.png"
    assert normal.image(16).shape == (3, 16, 16)
    mask = normal.mask(16)
    assert mask is not None
    assert mask.shape == (16, 16)
    assert not mask.any()
    assert unmarked.mask(16) is None
    marked = save(tmp_path / "m.png", np.where(np.arange(20) < 10, 1, 0).astype(np.uint8)[None].repeat(10, 0))
    expected = np.broadcast_to(np.arange(16) < 8, (16, 16))
    np.testing.assert_array_equal(FileSource(path, marked, tmp_path, False).mask(16), expected)


def test_mask_and_image_are_compared_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = save(tmp_path / "a.png", np.zeros((10, 20), np.uint8), exif=exif)
    mask = save(tmp_path / "m.png", np.ones((20, 10), np.uint8))
    found = FileSource(image, mask, tmp_path, False).mask(8)
    assert found is not None
    assert found.all()
    wrong = save(tmp_path / "w.png", np.ones((10, 20), np.uint8))
    with pytest.raises(DataError, match=r"mask w\.png is 20 x 10 pixels but its image a\.png is 10 x 20; give"):
        FileSource(image, wrong, tmp_path, False).mask(8)


def test_masks_must_be_lossless(tmp_path: Path) -> None:
    image = save(tmp_path / "a.png", np.zeros((10, 20), np.uint8))
    Image.new("L", (20, 10)).save(tmp_path / "m.jpg")
    with pytest.raises(DataError, match=r"m\.jpg is not lossless"):
        FileSource(image, tmp_path / "m.jpg", tmp_path, False).mask(8)


def test_files_that_fail_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    tifffile.imwrite(tmp_path / "nan.tif", np.full((9, 9), np.nan, np.float32))
    for name, reason in [
        ("text.png", "damaged"),
        ("folder.png", "no regular file"),
        ("gone.png", "no such file"),
        ("nan.tif", "no numbers"),
    ]:
        with pytest.raises(DataError, match=f"^{name}: .*{reason}"):
            FileSource(tmp_path / name, None, tmp_path, False).image(8)
    monkeypatch.setattr(files, "MAX_BYTES", 4)
    with pytest.raises(DataError, match="larger than"):
        FileSource(tmp_path / "text.png", None, tmp_path, False).image(8)


def test_a_permission_problem_is_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png", np.zeros((10, 20), np.uint8))
    path.chmod(0)
    if os.access(path, os.R_OK):  # the administrator reads everything: let the system call say no

        def refuse(_: Path) -> bytes:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match="permission denied; give the user"):
        FileSource(path, None, tmp_path, False).image(8)


def test_letterbox_keeps_proportions_and_masks_follow(tmp_path: Path) -> None:
    values = RNG.integers(1, 256, (10, 30, 3), dtype=np.uint8)
    path = save(tmp_path / "a.png", values)
    marked = np.zeros((10, 30), np.uint8)
    marked[:, 20:] = 1
    mask_path = save(tmp_path / "m.png", marked)
    source = FileSource(path, mask_path, tmp_path, False, reading=Reading(fit="letterbox"))
    image, mask = source.image(30), source.mask(30)
    assert mask is not None
    np.testing.assert_array_equal(image[:, 10:20], values.transpose(2, 0, 1) / np.float32(255))  # nothing was resized
    assert not image[:, :10].any()
    assert not image[:, 20:].any()
    np.testing.assert_array_equal(mask[10:20], marked > 0)
    assert mask.sum() == 100
    tall = Picture(np.zeros((40, 10), np.uint16), aspect=0.5)
    assert letterbox(tall, 64) == (32, 64)
    assert letterbox(Picture(np.zeros((1000, 8), np.uint16)), 16) == (1, 16)


def test_a_window_is_shown_as_it_is_stated() -> None:
    values = np.array([[-50, 0, 50, 100, 150]] * 5)
    shown = to_unit(values, 5, window=(0, 100))
    np.testing.assert_allclose(shown[0], np.array([[0, 0, 0.5, 1, 1]] * 5), atol=1e-6)


def test_a_plain_png_has_the_bits_it_always_had(tmp_path: Path) -> None:
    """What checkpoints and features were made from: Pillow's own resize of the bytes, whatever else can be read now."""
    values = RNG.integers(0, 256, (33, 21, 3), dtype=np.uint8)
    path = save(tmp_path / "a.png", values)
    expected = np.asarray(Image.fromarray(values).resize((16, 16), Image.Resampling.LANCZOS), np.float32) / 255
    for reading in (Reading(), Reading(window="percentile"), Reading(slices="all", axis="coronal", tiles=None)):
        found = FileSource(path, None, tmp_path, True, reading=reading).image(16)
        assert found.tobytes() == np.ascontiguousarray(expected.transpose(2, 0, 1)).tobytes()


@dataclass(frozen=True)
class Numbered:
    """A source whose pixels say which one it is; the fifth cannot be read."""

    number: int
    name: str = "numbered"

    def image(self, size: int) -> NDArray[np.float32]:
        if self.number == 5:
            raise DataError("five is broken")
        return np.full((3, size, size), self.number, np.float32)

    def mask(self, size: int) -> None:
        return None


def test_images_are_read_ahead_in_order_and_errors_come_at_their_place() -> None:
    read = read_images([Numbered(i) for i in range(5)] + [Numbered(i) for i in range(6, 40)], 8)
    assert [int(image[0, 0, 0]) for image in read] == [*range(5), *range(6, 40)]
    broken = read_images([Numbered(i) for i in range(20)], 8)
    assert [int(next(broken)[0, 0, 0]) for _ in range(5)] == list(range(5))
    with pytest.raises(DataError, match="five is broken"):
        next(broken)
