"""Crops of scikit-learn's two sample photographs: views of one image carry much of what a network knows.

After Asano and Saeed, ICLR 2023, who distil a network on crops of a single image.
"""

from functools import cache

import numpy as np
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_images

from pretraining.families import Pixels
from pretraining.textures import field

SMALLEST = 32
"""Side of the smallest crop in pixels; the largest takes the photograph's height."""


@cache
def _photographs() -> tuple[Image.Image, ...]:
    return tuple(Image.fromarray(array) for array in load_sample_images().images)


def crop(rng: np.random.Generator, size: int) -> Pixels:
    """A turned, resized and recoloured crop, [3, S, S] in 0..1; half of them grey."""
    photograph = _photographs()[rng.integers(2)]
    height = photograph.height
    side = int(np.exp(rng.uniform(np.log(SMALLEST), np.log(height))))
    left, top = (int(rng.integers(0, reach - side + 1)) for reach in photograph.size)
    view = photograph.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    view = view.transpose(Image.Transpose(int(rng.integers(7)))) if rng.random() < 0.8 else view
    if rng.random() < 0.5:
        view = view.rotate(rng.uniform(-30, 30), Image.Resampling.BICUBIC)
    if rng.random() < 0.2:
        view = view.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
    return _recoloured(rng, field(np.asarray(view).transpose(2, 0, 1) / 255))


def _recoloured(rng: np.random.Generator, pixels: Pixels) -> Pixels:
    """Another exposure, contrast and perhaps polarity; grey or with its channels in another order and strength."""
    if rng.random() < 0.5:
        pixels = field(np.repeat(pixels.mean(0, keepdims=True), 3, axis=0))
    else:
        pixels = pixels[rng.permutation(3)] * field(rng.uniform(0.6, 1.2, (3, 1, 1)))
    if rng.random() < 0.3:
        pixels = 1 - pixels
    bright = np.clip(pixels, 0, 1) ** np.exp(0.4 * rng.standard_normal())
    contrast = rng.uniform(0.5, 1.3)
    noisy = 0.5 + contrast * (bright - 0.5) + rng.uniform(-0.15, 0.15)
    if rng.random() < 0.3:
        noisy = noisy + rng.uniform(0, 0.05) * rng.standard_normal(pixels.shape)
    return field(np.clip(noisy, 0, 1))
