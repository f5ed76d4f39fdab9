"""Drawing primitives: smooth fields over an image plane that reaches from -1 to 1 in both directions (ours)."""

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image as Pillow

from fed_fsad.data.samples import Mask

Field = NDArray[np.floating[Any]]
"""[S, S] or, for colour, [3, S, S]."""
Point = tuple[float, float]
"""(y, x) in the image plane."""


@dataclass(frozen=True)
class Grid:
    """Pixel centres of an S x S image. y, x: [S, S], from -1 at the top left to 1. pixel: the side of a pixel."""

    size: int
    y: Field
    x: Field
    pixel: float


@functools.lru_cache(maxsize=8)
def grid(size: int) -> Grid:
    """The plane of a `size` x `size` image."""
    axis = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return Grid(size, y, x, 2 / size)


def resize(field: Field, size: int, how: Pillow.Resampling = Pillow.Resampling.BICUBIC) -> Field:
    """A [N, M] field as [size, size]."""
    return np.asarray(Pillow.fromarray(field).resize((size, size), how), dtype=np.float32)


def noise(rng: Generator, size: int, cells: int) -> Field:
    """Smooth noise of about unit deviation, [size, size], with `cells` bumps along a side at any size."""
    return resize(rng.standard_normal((cells + 2, cells + 2)).astype(np.float32), size)


def fractal(rng: Generator, size: int, cells: int, octaves: int) -> Field:
    """Noise of halving amplitude at doubling frequency, [size, size]."""
    return sum((noise(rng, size, cells * 2**k) * 0.5**k for k in range(octaves)), np.zeros((size, size), np.float32))


def step(distance: Field, width: float) -> Field:
    """Soft indicator of distance > 0: 0.5 at the border, 0 or 1 a few `width` away."""
    inside: Field = 1 / (1 + np.exp(-np.clip(distance / width, -30, 30)))
    return inside


def blend(base: Field, value: Field | float, weight: Field | float) -> Field:
    """`base` where weight is 0, `value` where it is 1."""
    return base * (1 - weight) + value * weight


def rgb(red: float, green: float, blue: float) -> Field:
    """A colour that broadcasts over an image, [3, 1, 1]."""
    return np.array([red, green, blue], dtype=np.float32)[:, None, None]


def ellipse(y: Field, x: Field, centre: Point, radii: Point, angle: float = 0.0) -> Field:
    """1 at the centre, 0 on the border, negative outside; `angle` in radians turns it."""
    cos, sin = math.cos(angle), math.sin(angle)
    dy, dx = y - centre[0], x - centre[1]
    inside: Field = 1 - np.hypot((cos * dy - sin * dx) / radii[0], (sin * dy + cos * dx) / radii[1])
    return inside


def blob(rng: Generator, plane: Grid, centre: Point, radius: float, roughness: float, cells: int = 5) -> Field:
    """Distance inside (> 0) a disc whose border wanders by `roughness` radii; never smaller than a pixel."""
    wander = 1 + roughness * noise(rng, plane.size, cells)
    distance: Field = np.hypot(plane.y - centre[0], plane.x - centre[1])
    return max(radius, plane.pixel) * wander - distance


def warp(rng: Generator, plane: Grid, amplitude: float) -> tuple[Field, Field]:
    """The plane's y and x, gently bent."""
    size = plane.size
    return plane.y + amplitude * noise(rng, size, 3), plane.x + amplitude * noise(rng, size, 3)


@dataclass(frozen=True)
class Drawing:
    """image: [1, S, S] grey or [3, S, S] colour, about [0, 1]. mask: [S, S], True where abnormal."""

    image: Field
    mask: Mask


@dataclass(frozen=True)
class Lesion:
    """One anomaly to draw: its own random stream, and how strongly it shows (0 = not at all, 1 = as usual)."""

    rng: Generator
    contrast: float

    def change(self, healthy: float, low: float, high: float) -> float:
        """A measure that the disease moves from `healthy` to between `low` and `high`; unmoved without contrast."""
        return healthy + (float(self.rng.uniform(low, high)) - healthy) * self.contrast

    def opacity(self) -> float:
        """How much of a painted lesion covers the tissue below: .45 to .95 at contrast 1, never above 1."""
        return min(1.0, float(self.rng.uniform(0.45, 0.95)) * self.contrast)


Lesions = Mapping[str, Lesion]
Anatomy = TypeVar("Anatomy")
Painter = Callable[[Anatomy, Field, Generator], tuple[Field, Mask]]
"""(anatomy, image so far, stream) to (image with the lesion at full strength, its pixels)."""


def changed(lesions: Lesions, kind: str, healthy: float, low: float, high: float) -> float:
    """A measure of the organ that anomaly `kind` moves to between `low` and `high`."""
    return lesions[kind].change(healthy, low, high) if kind in lesions else healthy


def paint(
    painters: Mapping[str, Painter[Anatomy]], anatomy: Anatomy, image: Field, mask: Mask, lesions: Lesions
) -> tuple[Field, Mask]:
    """Lay every painted lesion over the image, in the painters' order; lesions that are no paint are left alone."""
    for kind, painter in painters.items():
        if kind in lesions:
            painted, marked = painter(anatomy, image, lesions[kind].rng)
            image = blend(image, painted, lesions[kind].opacity())
            mask = mask | marked
    return image, mask
