"""Formula-made images: one family's regions under another pose, phase and exposure in every image (ours)."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pretraining.alterations import ALTERATIONS
from pretraining.families import Family, Layer, Pixels
from pretraining.textures import TEXTURES, Field, lattice, smooth_noise

TEXTURE_NUMBER = {kind: number for number, kind in enumerate(TEXTURES)}
VISIBLE = 0.05
"""A pixel counts as altered when its brightness changed by more than this."""
SMALLEST, TRIES = 0.008, 6
"""Share of the image that an alteration should fill, and how often it is tried."""


@dataclass(frozen=True)
class Scene:
    """One drawn image. pixels: [3, S, S] in 0..1. texture: [S, S] number of the topmost texture. region: [S, S] number
    of the topmost layer, 0 = ground. altered: [S, S], where the image departs from its family."""

    pixels: Pixels
    texture: NDArray[np.int64]
    region: NDArray[np.int64]
    altered: NDArray[np.bool_]


def draw(family: Family, rng: np.random.Generator, size: int, alter: bool) -> Scene:
    """One image of the family; `alter` puts something into it that the family does not have."""
    y, x = _posed(family, rng, size)
    layers = [_placed(layer, family, rng) for layer in family.layers]
    pixels, texture, region = _paint(family.ground, layers, rng, y, x)
    altered = np.zeros((size, size), np.bool_)
    if alter:
        pixels, altered = _altered(pixels, family, rng, y, x)
    return Scene(_exposed(pixels, family, rng), texture, region, altered)


def _altered(
    pixels: Pixels, family: Family, rng: np.random.Generator, y: Field, x: Field
) -> tuple[Pixels, NDArray[np.bool_]]:
    """The image with an alteration, and where; what can hardly be seen is tried again."""
    for _ in range(TRIES):
        change = rng.uniform(0.5, 1) * (ALTERATIONS[rng.integers(len(ALTERATIONS))](pixels, family, rng, y, x) - pixels)
        where = ndimage.binary_closing(np.abs(change).mean(0) > VISIBLE, iterations=2)
        if where.mean() > SMALLEST:
            break
    return pixels + change, where


def _posed(family: Family, rng: np.random.Generator, size: int) -> tuple[Field, Field]:
    """The coordinates under a small rotation, scaling, shift and smooth warp: how a patient lies."""
    y, x = lattice(size)
    turn, scale = 0.1 * family.jitter * rng.standard_normal(), np.exp(0.06 * family.jitter * rng.standard_normal())
    shift_y, shift_x = 0.06 * family.jitter * rng.standard_normal(2)
    cos, sin = np.cos(turn) / scale, np.sin(turn) / scale
    warp = 0.02 * family.jitter
    return (
        (y * cos - x * sin + shift_y + warp * smooth_noise(rng, size, 3)).astype(np.float32),
        (y * sin + x * cos + shift_x + warp * smooth_noise(rng, size, 3)).astype(np.float32),
    )


def _placed(layer: Layer, family: Family, rng: np.random.Generator) -> Layer:
    shape = layer.shape.jittered(rng, family.jitter)
    if family.scattered:
        y, x, angle = rng.uniform(-1.1, 1.1), rng.uniform(-1.1, 1.1), rng.uniform(0, 2 * np.pi)
        shape = replace(shape, y=y, x=x, angle=angle)
    colour = layer.colour * np.float32(np.exp(0.06 * family.jitter * rng.standard_normal()))
    return Layer(shape, layer.texture, colour, layer.modulation)


def _paint(
    ground: Layer, layers: list[Layer], rng: np.random.Generator, y: Field, x: Field
) -> tuple[Pixels, NDArray[np.int64], NDArray[np.int64]]:
    pixels = ground.fill(rng, y, x)
    texture = np.full(y.shape, TEXTURE_NUMBER[ground.texture.kind])
    region = np.zeros(y.shape, np.int64)
    for number, layer in enumerate(layers, start=1):
        cover = layer.shape.cover(rng, y, x)
        pixels = pixels + cover * (layer.fill(rng, y, x) - pixels)
        texture[cover > 0.5] = TEXTURE_NUMBER[layer.texture.kind]
        region[cover > 0.5] = number
    return pixels, texture, region


def _exposed(pixels: Pixels, family: Family, rng: np.random.Generator) -> Pixels:
    """Blur, contrast, brightness, shading and noise: how a scanner sees it."""
    size = pixels.shape[-1]
    if rng.random() < 0.5:
        pixels = ndimage.gaussian_filter(pixels, (0, *(rng.uniform(0.2, 0.9),) * 2))
    pixels = np.clip(pixels, 0, 1) ** np.exp(0.15 * rng.standard_normal()) * np.exp(0.1 * rng.standard_normal())
    pixels = pixels * (1 + 0.08 * smooth_noise(rng, size, 2))
    pixels = pixels + family.noise * rng.standard_normal((3, size, size), dtype=np.float32)
    return np.clip(pixels, 0, 1).astype(np.float32)
