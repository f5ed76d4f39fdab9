"""Ways in which an image departs from its family: what the teacher learns to notice (ours)."""

import numpy as np
from scipy import ndimage

from pretraining.families import Family, Pixels, sample_layer
from pretraining.shapes import Shape, sample_shape
from pretraining.textures import Field, field


def _spot(rng: np.random.Generator) -> Shape:
    return sample_shape(rng, (0.07, 0.4), 0.6)


def _insertion(pixels: Pixels, family: Family, rng: np.random.Generator, y: Field, x: Field) -> Pixels:
    """A region of foreign colour and texture."""
    grey = bool(np.ptp(family.ground.colour) == 0)
    for _ in range(rng.integers(1, 5)):
        new = sample_layer(rng, _spot(rng), grey, rng.uniform(0, 0.3))
        pixels = pixels + new.shape.cover(rng, y, x) * (new.fill(rng, y, x) - pixels)
    return pixels


def _displacement(pixels: Pixels, family: Family, rng: np.random.Generator, y: Field, x: Field) -> Pixels:
    """A piece of the image itself, turned, where it does not belong."""
    size = pixels.shape[-1]
    moved = np.rot90(
        np.roll(pixels, tuple(rng.integers(size // 6, size - size // 6, 2)), (1, 2)), int(rng.integers(4)), (1, 2)
    )
    return pixels + _spot(rng).cover(rng, y, x) * (moved - pixels)


def _brightening(pixels: Pixels, family: Family, rng: np.random.Generator, y: Field, x: Field) -> Pixels:
    """A place that is brighter or darker, its structure kept."""
    change = rng.choice([-1, 1]) * rng.uniform(0.15, 0.5)
    return pixels + np.float32(change) * _spot(rng).cover(rng, y, x)


def _smearing(pixels: Pixels, family: Family, rng: np.random.Generator, y: Field, x: Field) -> Pixels:
    """A place whose structure is lost."""
    blurred = ndimage.gaussian_filter(pixels, (0, *(rng.uniform(2, 6),) * 2))
    return field(pixels + sample_shape(rng, (0.2, 0.5), 0.5).cover(rng, y, x) * (blurred - pixels))


def _swelling(pixels: Pixels, family: Family, rng: np.random.Generator, y: Field, x: Field) -> Pixels:
    """A place that is pushed apart or drawn together around its centre."""
    size = pixels.shape[-1]
    cy, cx, reach = *rng.uniform(-0.5, 0.5, 2), rng.uniform(0.2, 0.5)
    pull = rng.choice([-0.9, 0.5]) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / reach**2)
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    where = (rows + pull * (y - cy) * size / 2, columns + pull * (x - cx) * size / 2)
    return field([ndimage.map_coordinates(channel, where, order=1, mode="nearest") for channel in pixels])


ALTERATIONS = (_insertion, _insertion, _displacement, _brightening, _smearing, _swelling)
"""Ways to depart from a family; insertion counts twice."""
