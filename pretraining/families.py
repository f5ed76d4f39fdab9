"""Formula-made families: what the images of one family share (ours).

A family is to the teacher what an organ is to the detector. No organ is drawn or imitated.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pretraining.shapes import Shape, sample_shape
from pretraining.textures import Field, Texture, field, sample_texture

Pixels = NDArray[np.float32]
"""[3, S, S], 0..1 where nothing else is said."""


@dataclass(frozen=True)
class Layer:
    """One painted region: colour [3] in 0..1, and how strongly the texture modulates it."""

    shape: Shape
    texture: Texture
    colour: NDArray[np.float32]
    modulation: float

    def fill(self, rng: np.random.Generator, y: Field, x: Field) -> Pixels:
        """Its colour and texture everywhere, [3, S, S]."""
        return field(self.colour[:, None, None] + np.float32(self.modulation) * self.texture.fill(rng, y, x))


@dataclass(frozen=True)
class Family:
    """What all images of a family share. scattered: layers lie anywhere in every image, as cells in a tissue do."""

    ground: Layer
    layers: tuple[Layer, ...]
    jitter: float
    scattered: bool
    noise: float


def sample_family(rng: np.random.Generator) -> Family:
    """A family: ground, perhaps a body, and regions large to small."""
    grey = rng.random() < 0.6
    scattered = rng.random() < 0.25
    ground = sample_layer(rng, sample_shape(rng, (1.0, 1.5), 0.1), grey, modulation=rng.uniform(0, 0.25))
    layers = []
    if not scattered and rng.random() < 0.7:
        body = Shape("disc", 0, 0, rng.uniform(0.7, 1), rng.uniform(0.8, 1.25), rng.uniform(-0.2, 0.2), 0.04, 0.04, 0)
        layers.append(sample_layer(rng, body, grey, modulation=rng.uniform(0, 0.25)))
    for radius in sorted(np.exp(rng.uniform(np.log(0.08), np.log(0.6), rng.integers(2, 7))), reverse=True):
        layers.append(sample_layer(rng, sample_shape(rng, (radius, radius * 1.01), 0.7), grey, rng.uniform(0, 0.3)))
    if not scattered and rng.random() < 0.4:
        layers = [twin for layer in layers for twin in (layer, _mirrored(layer))]
    if scattered:
        layers *= int(rng.integers(1, 4))
    return Family(ground, tuple(layers), rng.uniform(0.3, 1.3), scattered, rng.uniform(0, 0.05))


def sample_layer(rng: np.random.Generator, shape: Shape, grey: bool, modulation: float) -> Layer:
    """A region of that shape with any texture and colour."""
    colour = np.repeat(rng.random(1), 3) if grey else rng.random(3)
    return Layer(shape, sample_texture(rng), colour.astype(np.float32), modulation)


def _mirrored(layer: Layer) -> Layer:
    return replace(layer, shape=replace(layer.shape, x=-layer.shape.x, angle=np.pi - layer.shape.angle))
