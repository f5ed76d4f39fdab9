"""Scanner styles: what differs between hospitals' machines for the same patient (ours)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image as Pillow
from scipy import ndimage

from fed_fsad.data.phantoms.canvas import Field, grid, resize, rgb
from fed_fsad.data.samples import Image


@dataclass(frozen=True)
class Style:
    """One scanner. gamma, gain, offset: its transfer curve. blur: pixels at 96. resolution: share of the image's side.
    vignette: darkening of the corners. noise: standard deviation. tint: gain per colour, on colour images only."""

    name: str
    gamma: float = 1.0
    gain: float = 1.0
    offset: float = 0.0
    blur: float = 0.0
    resolution: float = 1.0
    vignette: float = 0.0
    noise: float = 0.01
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)


STYLES: tuple[Style, ...] = (
    Style("reference"),
    Style("contrasty", gamma=1.25, gain=1.05, noise=0.03, vignette=0.12),
    Style("soft", gamma=0.80, gain=0.92, blur=0.7, noise=0.012, offset=0.03),
    Style("coarse", resolution=0.62, noise=0.02, gain=1.08, gamma=1.1, tint=(1.0, 0.96, 0.93)),
    Style("noisy", gamma=0.9, gain=1.12, noise=0.045, tint=(0.95, 1.0, 1.0)),
    Style("aged", blur=0.5, resolution=0.8, vignette=0.25, gamma=1.15, noise=0.02),
)


def scan(image: Field, style: Style, rng: Generator) -> Image:
    """A drawing [1 or 3, S, S] as that scanner shows it, [3, S, S]; exposure varies a little from image to image."""
    size = image.shape[-1]
    if style.resolution < 1:
        coarse = max(16, int(size * style.resolution))
        image = np.stack([resize(resize(channel, coarse, Pillow.Resampling.BOX), size) for channel in image])
    if style.blur > 0:
        sigma = style.blur * size / 96
        image = np.asarray(ndimage.gaussian_filter(image, (0, sigma, sigma)), dtype=np.float32)
    gamma, gain = style.gamma * math.exp(0.13 * rng.normal()), style.gain * math.exp(0.09 * rng.normal())
    image = np.clip(image, 0, 1) ** gamma * gain + style.offset
    if style.vignette > 0:
        image = image * (1 - style.vignette * (grid(size).y ** 2 + grid(size).x ** 2) / 2)
    if len(image) == 3:
        image = image * rgb(*style.tint)
    image = image + style.noise * rng.standard_normal((size, size), dtype=np.float32)
    return np.repeat(np.clip(image, 0, 1).astype(np.float32), 3 // len(image), axis=0)
