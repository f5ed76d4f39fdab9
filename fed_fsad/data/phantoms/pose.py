"""How a patient lies: turn, scale and shift of a drawing (ours)."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from fed_fsad.data.phantoms.canvas import Drawing, Field

Border = Literal["constant", "nearest", "reflect"]
"""What lies beyond the drawing: black, its last row, or its mirror image."""


@dataclass(frozen=True)
class Pose:
    """angle: radians. scale: 1 keeps the size. shift: (down, right) as shares of the image's side."""

    angle: float
    scale: float
    shift: tuple[float, float]


def draw_pose(rng: Generator, jitter: float) -> Pose:
    """A random pose; deviations at jitter 1 are 0.10 radians, 6 % of size and 4.5 % of the side."""
    angle, size, down, right = (rng.standard_normal(4) * jitter).tolist()
    return Pose(0.10 * angle, math.exp(0.06 * size), (0.045 * down, 0.045 * right))


def move(drawing: Drawing, pose: Pose, border: Border) -> Drawing:
    """The drawing in that pose, image and mask together."""
    side = drawing.mask.shape[0]
    cos, sin = math.cos(pose.angle) / pose.scale, math.sin(pose.angle) / pose.scale
    matrix = np.array([[cos, -sin], [sin, cos]])
    centre = np.full(2, (side - 1) / 2)
    offset = centre - matrix @ (centre + np.array(pose.shift) * side)

    def resample(field: Field) -> Field:
        moved: Field = ndimage.affine_transform(field, matrix, offset, order=1, mode=border)
        return moved

    image = np.stack([resample(channel) for channel in drawing.image])
    mask = resample(drawing.mask.astype(np.float32)) > 0.5 if drawing.mask.any() else drawing.mask
    return Drawing(image, mask)
