"""NIfTI volumes: slices along an axis of the patient, however the scanner stored them."""

import logging
import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_fsad.data.readers.dicom_header import MOST_UNEVEN
from fed_fsad.data.readers.files import check_file, extra
from fed_fsad.data.readers.picture import (
    Grid,
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
)
from fed_fsad.data.settings import Reading

MAX_VOLUME = 1 << 30
"""Bytes of a volume once it is unpacked."""
AXES = ("sagittal", "coronal", "axial")
"""Names of the axes of a volume whose values run to the right, to the front and to the head (RAS)."""
SUFFIXES = (".nii", ".nii.gz")
MOST_PACKED = 1032
"""Bytes that one byte of gzip can become at most."""


class Nifti(Opened):
    """A volume turned to RAS. Raises Undecodable when it is none, DataError when nibabel is missing."""

    grid: Grid

    def __init__(self, path: Path, reading: Reading) -> None:
        super().__init__(path)
        self._reading = reading
        self._volume, self._scale, self._file_window, self.grid = _load(path)

    def pictures(self) -> Iterator[tuple[str, Picture]]:
        """The slices along `reading.axis` that `reading.slices` chooses; a single slice lies as it lies."""
        flat = [name for name, size in zip(AXES, self.grid.shape, strict=True) if size == 1]
        axis = flat[0] if len(flat) == 1 else self._reading.axis
        for number in pick(self._reading.slices, self.grid.shape[AXES.index(axis)]):
            part = f"{axis}-{number:03}"
            yield part, self.picture(part)

    def picture(self, part: str) -> Picture:
        """A slice as radiologists hang it: columns run to the patient's left or back, rows to the back or feet."""
        pixels = self.marks(part)
        check_finite(pixels)
        steps = np.linalg.norm(_affine(self.grid)[:3, :3], axis=0)
        width, height = (float(step) for name, step in zip(AXES, steps, strict=True) if name != part.partition("-")[0])
        even = 1 / MOST_UNEVEN <= height / width <= MOST_UNEVEN if width and np.isfinite(steps).all() else False
        window = self._file_window if self._reading.window == "file" else None
        return Picture(pixels, window or self._percentiles, height / width if even else 1.0)

    def marks(self, part: str) -> Pixels:
        """The slice's values."""
        name = part.partition("-")[0]
        axis = AXES.index(name) if name in AXES else AXES.index(self._reading.axis)
        plane = np.take(self._volume, number_of(part, AXES[axis], self._volume.shape[axis]), axis)[::-1, ::-1].T
        check_size(plane.shape[1], plane.shape[0])
        return self._scaled(plane)

    @cached_property
    def _percentiles(self) -> tuple[float, float]:
        """Of some axial slices: one slice is as bright as the next, whatever the axis."""
        x, y, z = self._volume.shape
        step = step_of(x, y)
        some = self._scaled(self._volume[::step, ::step, spread(z)])
        check_finite(some)
        return limits_of(some)

    def _scaled(self, stored: NDArray[Any]) -> NDArray[np.float64]:
        slope, intercept = self._scale
        return stored.astype(np.float64) * slope + intercept


def _load(path: Path) -> tuple[NDArray[Any], tuple[float, float], tuple[float, float] | None, Grid]:
    """Stored values [X, Y, Z] in RAS, slope and intercept, the file's window, and where the voxels lie."""
    nibabel = extra("nibabel", "NIfTI files")
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    check_file(path, MAX_VOLUME)
    if not path.name.lower().endswith(SUFFIXES):
        raise Undecodable("it looks like a NIfTI volume under another name; call it .nii or .nii.gz")
    with damaged("the file is damaged or no NIfTI volume; replace or remove it"):
        image = nibabel.load(path, mmap=False)
        shape = _shape(image, path.stat().st_size)
        stored = image.dataobj.get_unscaled().reshape(shape)
        turn = nibabel.io_orientation(image.affine)
        affine = image.affine @ nibabel.orientations.inv_ornt_aff(turn, shape)
        volume = nibabel.apply_orientation(stored, turn)
    low, high = float(image.header["cal_min"]), float(image.header["cal_max"])
    window = (low, high) if np.isfinite([low, high]).all() and low < high else None
    return volume, (float(image.dataobj.slope), float(image.dataobj.inter)), window, Grid(volume.shape, affine)


def _shape(image: Any, file_bytes: int) -> tuple[int, int, int]:
    """The volume's size on three axes, before its values are read."""
    shape = tuple(map(int, image.shape))
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) > 3:
        raise Undecodable(f"the volume has {len(shape)} axes ({' x '.join(map(str, shape))}); save one volume per file")
    dtype = image.dataobj.dtype
    if dtype.kind not in "iuf":
        raise Undecodable("the volume holds colours or complex numbers; save it with one number per voxel")
    size = dtype.itemsize * math.prod(shape)
    if size > MAX_VOLUME:
        raise Undecodable(f"the volume is larger than {MAX_VOLUME >> 20} MiB; cut or rescale it")
    if size > file_bytes * MOST_PACKED:
        raise Undecodable("the file holds less than its header promises; replace or remove it")
    x, y, z = (*shape, 1, 1)[:3]
    return x, y, z


def _affine(grid: Grid) -> NDArray[np.float64]:
    return np.eye(4) if grid.affine is None else grid.affine
