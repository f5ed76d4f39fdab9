"""Procedural textures: what fills the regions of formula-made images (ours)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

Field = NDArray[np.float32]
"""[S, S], one value per pixel."""


def field(values: ArrayLike) -> Field:
    """The values as float32."""
    return np.asarray(values, np.float32)


@lru_cache(4)
def lattice(size: int) -> tuple[Field, Field]:
    """The pixel centres' y and x in [-1, 1], each [S, S]."""
    axis = ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    return y, x


@lru_cache(128)
def _interpolation(size: int, cells: int) -> Field:
    """The [size, cells] matrix of bicubic resizing along one axis."""
    rows = Image.fromarray(np.eye(cells, dtype=np.float32))
    return field(np.asarray(rows.resize((cells, size), Image.Resampling.BICUBIC)))


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Noise of about unit spread whose structures are size / cells pixels wide, [S, S]."""
    matrix = _interpolation(size, cells + 2)
    return field(matrix @ rng.standard_normal((cells + 2, cells + 2), dtype=np.float32) @ matrix.T)


def fractal_noise(rng: np.random.Generator, size: int, cells: int, octaves: int) -> Field:
    """Smooth noise summed over octaves, each twice as fine and half as strong, [S, S]."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        total += 0.5**octave * smooth_noise(rng, size, min(cells * 2**octave, size))
    return total


@dataclass(frozen=True)
class Texture:
    """A texture's fixed part; phases and noise are drawn anew for every image.

    kind: a key of TEXTURES. angle in radians; frequency in radians per half image; sharpness of its edges.
    """

    kind: str
    angle: float
    frequency: float
    sharpness: float

    def fill(self, rng: np.random.Generator, y: Field, x: Field) -> Field:
        """Its values, about -1..1, at coordinates y and x, [S, S]."""
        u = y * np.cos(self.angle) + x * np.sin(self.angle)
        v = x * np.cos(self.angle) - y * np.sin(self.angle)
        return TEXTURES[self.kind](self, rng, u + rng.uniform(-1, 1), v + rng.uniform(-1, 1))


def sample_texture(rng: np.random.Generator) -> Texture:
    """A texture of any kind, orientation and scale."""
    kind = str(rng.choice(list(TEXTURES)))
    return Texture(kind, rng.uniform(0, np.pi), rng.uniform(4, 14), rng.uniform(1, 4))


def _flat(t: Texture, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(0.15 * smooth_noise(rng, u.shape[0], 2))


def _stripes(t: Texture, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(np.tanh(t.sharpness * np.sin(2 * t.frequency * u)))


def _waves(t: Texture, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(np.sin(2 * t.frequency * u + 2 * smooth_noise(rng, u.shape[0], 4)))


def _checks(t: Texture, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(np.tanh(2 * t.sharpness * np.sin(t.frequency * u) * np.sin(t.frequency * v)))


def _dots(t: Texture, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(np.clip(3 * np.cos(2 * t.frequency * u) * np.cos(2 * t.frequency * v) - 1.2, -1, 1))


def _mesh(t: Texture, rng: np.random.Generator, u: Field, v: Field) -> Field:
    wires = np.minimum(np.abs(np.sin(t.frequency * u)), np.abs(np.sin(t.frequency * v)))
    return field(np.tanh(t.sharpness * (0.25 - wires) * 4))


def _rings(t: Texture, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(np.sin(3 * t.frequency * np.hypot(u, v)))


def _clouds(t: Texture, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(0.7 * fractal_noise(rng, u.shape[0], 3, 3))


def _grain(t: Texture, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(0.7 * smooth_noise(rng, u.shape[0], int(2 * t.frequency)))


def _ridges(t: Texture, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(1 - 1.6 * np.abs(fractal_noise(rng, u.shape[0], 4, 3)))


def _veins(t: Texture, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(2 * np.exp(-((smooth_noise(rng, u.shape[0], int(t.frequency)) * t.sharpness * 2) ** 2)) - 0.5)


def _speckle(t: Texture, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(0.6 * rng.standard_normal(u.shape, dtype=np.float32))


def _cells(t: Texture, rng: np.random.Generator, u: Field, v: Field) -> Field:
    first, second = np.full_like(u, 9), np.full_like(u, 9)
    for su, sv in rng.uniform(-2, 2, (int(4 * t.frequency), 2)).astype(np.float32):
        squared = (u - su) ** 2 + (v - sv) ** 2
        second = np.minimum(second, np.maximum(first, squared))
        first = np.minimum(first, squared)
    return field(np.tanh(5 * t.sharpness * (np.sqrt(second) - np.sqrt(first)) - 1))


TEXTURES: dict[str, Callable[[Texture, np.random.Generator, Field, Field], Field]] = {
    "flat": _flat,
    "stripes": _stripes,
    "waves": _waves,
    "checks": _checks,
    "dots": _dots,
    "mesh": _mesh,
    "rings": _rings,
    "clouds": _clouds,
    "grain": _grain,
    "ridges": _ridges,
    "veins": _veins,
    "speckle": _speckle,
    "cells": _cells,
}
