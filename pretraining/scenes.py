"""Formula-made families of images: layered shapes that every image of a family shows a little differently (ours).

A family is to the teacher what an organ is to the detector: its images agree up to pose, texture phase and exposure,
and an altered image differs from all of them somewhere. No organ is drawn or imitated.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pretraining.shapes import Shape, sample_shape
from pretraining.textures import TEXTURES, Field, Texture, field, lattice, sample_texture, smooth_noise

TEXTURE_NUMBER = {kind: number for number, kind in enumerate(TEXTURES)}
VISIBLE = 0.05
"""A pixel counts as altered when its brightness changed by more than this."""
SMALLEST, TRIES = 0.008, 6
"""Share of the image that an alteration should fill, and how often it is tried."""


@dataclass(frozen=True)
class Layer:
    """One painted region: colour [3] in 0..1, and how strongly the texture modulates it."""

    shape: Shape
    texture: Texture
    colour: NDArray[np.float32]
    modulation: float


@dataclass(frozen=True)
class Family:
    """What all images of a family share. scattered: layers lie anywhere in every image, as cells in a tissue do."""

    ground: Layer
    layers: tuple[Layer, ...]
    jitter: float
    scattered: bool
    noise: float


@dataclass(frozen=True)
class Scene:
    """One drawn image. pixels: [3, S, S] in 0..1. texture: [S, S] number of the topmost texture. region: [S, S] number
    of the topmost layer, 0 = ground. altered: [S, S], where the image departs from its family."""

    pixels: NDArray[np.float32]
    texture: NDArray[np.int64]
    region: NDArray[np.int64]
    altered: NDArray[np.bool_]


def sample_family(rng: np.random.Generator) -> Family:
    """A family: ground, perhaps a body, and regions large to small."""
    grey = rng.random() < 0.6
    scattered = rng.random() < 0.25
    ground = _layer(rng, sample_shape(rng, (1.0, 1.5), 0.1), grey, modulation=rng.uniform(0, 0.25))
    layers = []
    if not scattered and rng.random() < 0.7:
        body = Shape("disc", 0, 0, rng.uniform(0.7, 1), rng.uniform(0.8, 1.25), rng.uniform(-0.2, 0.2), 0.04, 0.04, 0)
        layers.append(_layer(rng, body, grey, modulation=rng.uniform(0, 0.25)))
    for radius in sorted(np.exp(rng.uniform(np.log(0.08), np.log(0.6), rng.integers(2, 7))), reverse=True):
        layers.append(_layer(rng, sample_shape(rng, (radius, radius * 1.01), 0.7), grey, rng.uniform(0, 0.3)))
    if not scattered and rng.random() < 0.4:
        layers = [twin for layer in layers for twin in (layer, _mirrored(layer))]
    if scattered:
        layers *= int(rng.integers(1, 4))
    return Family(ground, tuple(layers), rng.uniform(0.3, 1.3), scattered, rng.uniform(0, 0.05))


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
    pixels: NDArray[np.float32], family: Family, rng: np.random.Generator, y: Field, x: Field
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The image with an alteration, and where; what can hardly be seen is tried again."""
    for _ in range(TRIES):
        change = rng.uniform(0.5, 1) * (ALTERATIONS[rng.integers(len(ALTERATIONS))](pixels, family, rng, y, x) - pixels)
        where = ndimage.binary_closing(np.abs(change).mean(0) > VISIBLE, iterations=2)
        if where.mean() > SMALLEST:
            break
    return pixels + change, where


def _layer(rng: np.random.Generator, shape: Shape, grey: bool, modulation: float) -> Layer:
    colour = np.repeat(rng.random(1), 3) if grey else rng.random(3)
    return Layer(shape, sample_texture(rng), colour.astype(np.float32), modulation)


def _mirrored(layer: Layer) -> Layer:
    shape = layer.shape
    twin = Shape(**{**vars(shape), "x": -shape.x, "angle": np.pi - shape.angle})
    return Layer(twin, layer.texture, layer.colour, layer.modulation)


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
        shape = Shape(**{**vars(shape), "y": y, "x": x, "angle": angle})
    colour = layer.colour * np.float32(np.exp(0.06 * family.jitter * rng.standard_normal()))
    return Layer(shape, layer.texture, colour, layer.modulation)


def _filled(layer: Layer, rng: np.random.Generator, y: Field, x: Field) -> NDArray[np.float32]:
    return layer.colour[:, None, None] + np.float32(layer.modulation) * layer.texture.fill(rng, y, x)


def _paint(
    ground: Layer, layers: list[Layer], rng: np.random.Generator, y: Field, x: Field
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    pixels = _filled(ground, rng, y, x)
    texture = np.full(y.shape, TEXTURE_NUMBER[ground.texture.kind])
    region = np.zeros(y.shape, np.int64)
    for number, layer in enumerate(layers, start=1):
        cover = layer.shape.cover(rng, y, x)
        pixels = pixels + cover * (_filled(layer, rng, y, x) - pixels)
        texture[cover > 0.5] = TEXTURE_NUMBER[layer.texture.kind]
        region[cover > 0.5] = number
    return pixels, texture, region


def _exposed(pixels: NDArray[np.float32], family: Family, rng: np.random.Generator) -> NDArray[np.float32]:
    """Blur, contrast, brightness, shading and noise: how a scanner sees it."""
    size = pixels.shape[-1]
    if rng.random() < 0.5:
        pixels = ndimage.gaussian_filter(pixels, (0, *(rng.uniform(0.2, 0.9),) * 2))
    pixels = np.clip(pixels, 0, 1) ** np.exp(0.15 * rng.standard_normal()) * np.exp(0.1 * rng.standard_normal())
    pixels = pixels * (1 + 0.08 * smooth_noise(rng, size, 2))
    pixels = pixels + family.noise * rng.standard_normal((3, size, size), dtype=np.float32)
    return np.clip(pixels, 0, 1).astype(np.float32)


def _spot(rng: np.random.Generator) -> Shape:
    return sample_shape(rng, (0.07, 0.4), 0.6)


def _insertion(
    pixels: NDArray[np.float32], family: Family, rng: np.random.Generator, y: Field, x: Field
) -> NDArray[np.float32]:
    """A region of foreign colour and texture."""
    grey = bool(np.ptp(family.ground.colour) == 0)
    for _ in range(rng.integers(1, 5)):
        new = _layer(rng, _spot(rng), grey, rng.uniform(0, 0.3))
        pixels = pixels + new.shape.cover(rng, y, x) * (_filled(new, rng, y, x) - pixels)
    return pixels


def _displacement(
    pixels: NDArray[np.float32], family: Family, rng: np.random.Generator, y: Field, x: Field
) -> NDArray[np.float32]:
    """A piece of the image itself, turned, where it does not belong."""
    size = pixels.shape[-1]
    moved = np.rot90(
        np.roll(pixels, tuple(rng.integers(size // 6, size - size // 6, 2)), (1, 2)), int(rng.integers(4)), (1, 2)
    )
    return pixels + _spot(rng).cover(rng, y, x) * (moved - pixels)


def _brightening(
    pixels: NDArray[np.float32], family: Family, rng: np.random.Generator, y: Field, x: Field
) -> NDArray[np.float32]:
    """A place that is brighter or darker, its structure kept."""
    change = rng.choice([-1, 1]) * rng.uniform(0.15, 0.5)
    return pixels + np.float32(change) * _spot(rng).cover(rng, y, x)


def _smearing(
    pixels: NDArray[np.float32], family: Family, rng: np.random.Generator, y: Field, x: Field
) -> NDArray[np.float32]:
    """A place whose structure is lost."""
    blurred = ndimage.gaussian_filter(pixels, (0, *(rng.uniform(2, 6),) * 2))
    return field(pixels + sample_shape(rng, (0.2, 0.5), 0.5).cover(rng, y, x) * (blurred - pixels))


def _swelling(
    pixels: NDArray[np.float32], family: Family, rng: np.random.Generator, y: Field, x: Field
) -> NDArray[np.float32]:
    """A place that is pushed apart or drawn together around its centre."""
    size = pixels.shape[-1]
    cy, cx, reach = *rng.uniform(-0.5, 0.5, 2), rng.uniform(0.2, 0.5)
    pull = rng.choice([-0.9, 0.5]) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / reach**2)
    rows, columns = np.meshgrid(np.arange(size), np.arange(size), indexing="ij")
    where = (rows + pull * (y - cy) * size / 2, columns + pull * (x - cx) * size / 2)
    return field([ndimage.map_coordinates(channel, where, order=1, mode="nearest") for channel in pixels])


ALTERATIONS = (_insertion, _insertion, _displacement, _brightening, _smearing, _swelling)
"""Ways to depart from a family; insertion counts twice."""
