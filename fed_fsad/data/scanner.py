"""A scanner of one's own for every hospital of a simulation: files are shifted when they are read (ours)."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from fed_fsad.data.samples import Image
from fed_fsad.seeds import numpy_stream


@dataclass(frozen=True)
class Shift:
    """One scanner's transfer curve and sharpness. blur: standard deviation in pixels of an image of side 96."""

    gamma: float
    gain: float
    blur: float

    def apply(self, image: Image) -> Image:
        """[3, S, S] in [0, 1] to the same, as this scanner shows it."""
        sigma = self.blur * image.shape[-1] / 96
        soft = ndimage.gaussian_filter(image, (0, sigma, sigma))
        shown: Image = np.clip(np.clip(soft, 0, 1) ** self.gamma * self.gain, 0, 1).astype(np.float32)
        return shown

    @property
    def look(self) -> str:
        """What it adds to the look of an image, under which features are kept."""
        return f" scanner {self.gamma!r} {self.gain!r} {self.blur!r}"


def shift_of(hospital: str, strength: float, seed: int) -> Shift:
    """The scanner of a hospital, drawn by name. strength: in [0, 1]; 1 is about as far apart as the phantom styles."""
    gamma, gain, blur = numpy_stream(seed, "scanner", hospital).standard_normal(3).clip(-2, 2)
    return Shift(math.exp(0.25 * strength * gamma), math.exp(0.1 * strength * gain), 0.6 * strength * abs(float(blur)))
