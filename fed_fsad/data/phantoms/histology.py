"""Histology patch stained with haematoxylin and eosin, in colour (ours)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage

from fed_fsad.data.phantoms.canvas import (
    Drawing,
    Field,
    Grid,
    Lesions,
    Painter,
    blend,
    blob,
    fractal,
    grid,
    noise,
    paint,
    rgb,
    step,
)
from fed_fsad.data.samples import Mask

REFERENCE = 96
"""Lengths below are pixels of a patch of this size; other sizes scale them."""
WHITE = rgb(0.99, 0.97, 0.98)


@dataclass(frozen=True)
class Stain:
    """Colours of one slide, [3, 1, 1] each: strong and weak eosin, gland cytoplasm, nuclei."""

    pink: Field
    pale: Field
    cytoplasm: Field
    nucleus: Field


@dataclass(frozen=True)
class Tissue:
    """A patch without lesions. background: [3, S, S] without nuclei. unit: a reference pixel in pixels."""

    plane: Grid
    stain: Stain
    background: Field
    nuclei: Field
    unit: float


@dataclass(frozen=True)
class Cells:
    """n soft ellipses in pixel coordinates: centres, short radii, elongations and angles, [n] each."""

    y: NDArray[np.float64]
    x: NDArray[np.float64]
    radius: NDArray[np.float64]
    elongation: NDArray[np.float64]
    angle: NDArray[np.float64]

    def splat(self, size: int, soft: float) -> Field:
        """The cells' outlines, [size, size] weights; overlapping cells merge."""
        reach = math.ceil(1.3 * float((self.radius * self.elongation).max())) + 2
        offsets = np.arange(-reach, reach + 1)
        visible = (np.minimum(self.y, self.x) > -reach) & (np.maximum(self.y, self.x) < size + reach)
        y, x, radius, elongation, angle = (
            column[visible, None, None].astype(np.float32)
            for column in (self.y, self.x, self.radius, self.elongation, self.angle)
        )
        rows, columns = y.astype(np.int64) + offsets[:, None], x.astype(np.int64) + offsets  # each cell's own window
        dy, dx = rows - y, columns - x
        along, across = np.cos(angle) * dy - np.sin(angle) * dx, np.sin(angle) * dy + np.cos(angle) * dx
        distance = 1 - np.hypot(along / (radius * elongation), across / radius)
        weight = step(radius * distance, soft / 2.2)
        side = size + 4 * reach
        out = np.zeros(side * side, dtype=np.float32)
        inked = weight > 0.01
        np.maximum.at(out, ((rows + 2 * reach) * side + columns + 2 * reach)[inked], weight[inked])
        return out.reshape(side, side)[2 * reach : 2 * reach + size, 2 * reach : 2 * reach + size]


def draw(size: int, lesions: Lesions, rng: Generator) -> Drawing:
    """One patch; `rng` draws the healthy tissue, each lesion draws from its own stream."""
    plane, unit, stain = grid(size), size / REFERENCE, _stain(rng)
    direction = rng.uniform(0, math.pi)
    wave = (plane.y * math.cos(direction) + plane.x * math.sin(direction)) * rng.uniform(16, 24)
    eosin = rng.uniform(0.35, 0.65) + 0.16 * np.sin(wave + 2.6 * noise(rng, size, 4)) + 0.16 * fractal(rng, size, 5, 3)
    image = blend(stain.pale, stain.pink, np.clip(eosin, 0, 1))
    nuclei = _stroma(plane, unit, direction, rng)
    for _ in range(rng.integers(1, 4)):
        image, nuclei = _gland(plane, unit, stain, image, nuclei, rng)
    for _ in range(rng.integers(0, 3)):
        image, nuclei = _fat_cell(plane, unit, image, nuclei, rng)
    tissue = Tissue(plane, stain, image, nuclei, unit)
    image = blend(image, stain.nucleus, 0.92 * nuclei)
    image, mask = paint(PAINTERS, tissue, image, np.zeros((size, size), dtype=bool), lesions)
    return Drawing(image + 0.02 * rng.standard_normal((3, size, size), dtype=np.float32), mask)


def _stain(rng: Generator) -> Stain:
    """A laboratory's hue and strength: it differs from slide to slide."""
    hue = rgb(*rng.normal(0, 0.03, 3).tolist())
    eosin, haematoxylin = rng.uniform(0.7, 1.3), rng.uniform(0.8, 1.2)
    absorbed = [rgb(0.07, 0.34, 0.20), rgb(0.02, 0.10, 0.06), rgb(0.16, 0.44, 0.24)]
    pink, pale, cytoplasm = (1 - eosin * colour + hue for colour in absorbed)
    return Stain(pink, pale, cytoplasm, 1 - haematoxylin * rgb(0.58, 0.74, 0.42) + hue)


def _stroma(plane: Grid, unit: float, direction: float, rng: Generator) -> Field:
    """Spindle nuclei along the fibres, their number very different from patch to patch, [S, S]."""
    n, size = int(math.exp(rng.uniform(math.log(20), math.log(150)))), plane.size
    y, x = rng.uniform(0, size, (2, n))
    radius, elongation = rng.uniform(1.3, 2.1, n) * unit, rng.uniform(1.1, 1.9, n)
    return Cells(y, x, radius, elongation, rng.normal(direction, 0.5, n)).splat(size, 0.9)


def _gland(plane: Grid, unit: float, stain: Stain, image: Field, nuclei: Field, rng: Generator) -> tuple[Field, Field]:
    """A lumen in a ring of cytoplasm and nuclei; returns background and nuclei."""
    size = plane.size
    y, x = rng.uniform(0.15, 0.85, 2) * size
    radius = rng.uniform(7, 12) * unit
    distance = np.hypot(plane.y / plane.pixel + size / 2 - y, plane.x / plane.pixel + size / 2 - x).astype(np.float32)
    distance = distance + 1.3 * unit * noise(rng, size, 6)
    ring = step(radius + 5 * unit - distance, 0.8)
    image = blend(blend(image, stain.cytoplasm, 0.8 * ring), WHITE, step(0.62 * radius - distance, 0.8))
    n = int(2 * math.pi * (radius + 2 * unit) / (4.2 * unit))
    turn = np.linspace(0, 2 * math.pi, n, endpoint=False) + rng.normal(0, 0.05, n)
    at = radius + 1.5 * unit
    cells = Cells(y + at * np.sin(turn), x + at * np.cos(turn), np.full(n, 1.7 * unit), np.full(n, 1.35), -turn)
    return image, np.maximum(nuclei * (1 - ring), cells.splat(size, 0.9))


def _fat_cell(plane: Grid, unit: float, image: Field, nuclei: Field, rng: Generator) -> tuple[Field, Field]:
    """An empty white cell; returns background and nuclei."""
    y, x = rng.uniform(-1, 1, 2).tolist()
    empty = step((rng.uniform(8, 13) * unit) - np.hypot(plane.y - y, plane.x - x) / plane.pixel, 0.7)
    return blend(image, WHITE, empty), nuclei * (1 - empty)


def _region(tissue: Tissue, rng: Generator) -> tuple[Field, Mask]:
    """Where a lesion lies: soft [S, S] weights and pixels."""
    y, x = rng.uniform(-0.45, 0.45, 2).tolist()
    inside = blob(rng, tissue.plane, (y, x), rng.uniform(0.20, 0.45), 0.30, 4)
    return step(inside, 0.03), inside > 0


def _scatter(mask: Mask, area_per_cell: float, rng: Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Random points inside the mask, one per `area_per_cell` pixels: y and x, [n] each."""
    pixels = np.argwhere(mask)
    n = max(1, int(len(pixels) / area_per_cell))
    points = pixels[rng.integers(0, len(pixels), n)] + rng.random((n, 2))
    return points[:, 0], points[:, 1]


def _nests(tissue: Tissue, image: Field, rng: Generator) -> tuple[Field, Mask]:
    (region, mask), unit, size = _region(tissue, rng), tissue.unit, tissue.plane.size
    image = blend(image, blend(tissue.background, tissue.stain.cytoplasm - 0.07, 0.8), region)
    y, x = _scatter(mask, 26 * unit**2, rng)
    n = len(y)
    radius, elongation = rng.uniform(2.0, 3.4, n) * unit, rng.uniform(1.0, 1.45, n)
    nuclei = Cells(y, x, radius, elongation, rng.uniform(0, math.pi, n)).splat(size, 0.9)
    chromatin = (tissue.stain.nucleus - 0.07) * (1 + 0.22 * noise(rng, size, 30))
    return blend(image, chromatin, 0.95 * nuclei), mask


def _lymphocytes(tissue: Tissue, image: Field, rng: Generator) -> tuple[Field, Mask]:
    (_, mask), unit = _region(tissue, rng), tissue.unit
    y, x = _scatter(mask, 9.5 * unit**2, rng)
    n = len(y)
    nuclei = Cells(y, x, rng.uniform(1.05, 1.35, n) * unit, np.ones(n), np.zeros(n)).splat(tissue.plane.size, 0.6)
    return blend(image, tissue.stain.nucleus - rgb(0.20, 0.12, 0.13), 0.97 * nuclei), mask


def _necrosis(tissue: Tissue, image: Field, rng: Generator) -> tuple[Field, Mask]:
    (region, mask), size = _region(tissue, rng), tissue.plane.size
    dead = (tissue.stain.pink - rgb(0.03, 0.14, 0.18)) * (1 + 0.05 * noise(rng, size, 12))
    image = blend(image, dead, 0.92 * region)
    specks = np.clip(rng.standard_normal((size, size), dtype=np.float32) - 1.55, 0, 1)
    debris = np.clip(3 * ndimage.gaussian_filter(specks, 0.6 * tissue.unit), 0, 1)
    return blend(image, tissue.stain.nucleus, 0.8 * debris * region), mask


PAINTERS: dict[str, Painter[Tissue]] = {
    "tumour nests": _nests,
    "lymphocytic infiltrate": _lymphocytes,
    "necrosis": _necrosis,
}
KINDS = tuple(PAINTERS)
