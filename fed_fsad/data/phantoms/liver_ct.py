"""Contrast-enhanced abdominal CT at the liver's height, one axial slice (ours)."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from fed_fsad.data.phantoms.canvas import (
    Drawing,
    Field,
    Grid,
    Lesions,
    Painter,
    Point,
    blend,
    blob,
    changed,
    ellipse,
    fractal,
    grid,
    noise,
    paint,
    step,
    warp,
)
from fed_fsad.data.samples import Mask


@dataclass(frozen=True)
class Abdomen:
    """A slice without painted lesions. depth: [S, S], distance inside the liver. liver: [S, S] weights."""

    plane: Grid
    depth: Field
    liver: Field

    def somewhere_in_liver(self, rng: Generator) -> Point:
        """A pixel well inside the liver, or its deepest one where it is thin."""
        y, x = np.nonzero(self.depth > min(0.10, 0.999 * float(self.depth.max())))
        i = rng.integers(len(y))
        return float(self.plane.y[y[i], x[i]]), float(self.plane.x[y[i], x[i]])


def draw(size: int, lesions: Lesions, rng: Generator) -> Drawing:
    """One slice; `rng` draws the anatomy, each lesion draws from its own stream."""
    plane = grid(size)
    edge = 0.8 * plane.pixel
    y, x = warp(rng, plane, 0.022)
    radii = (rng.uniform(0.66, 0.76), rng.uniform(0.86, 0.94))
    wall = 0.8 * ellipse(y, x, (0.0, 0.0), radii)
    cavity = step(wall - 0.105, edge)
    image = blend(np.zeros_like(y), 0.22, step(wall, edge))
    image = blend(image, 0.42, step(wall - 0.06, edge))
    image = blend(image, 0.25 + 0.05 * np.tanh(noise(rng, size, 9)), cavity)
    image = blend(image, 0.92, _ribs(plane, wall, radii, rng))
    image = _spine_and_vessels(plane, image, cavity, rng)
    image = blend(image, 0.60, step(0.2 * ellipse(y, x, (0.16, 0.63), (0.30, 0.15), 0.35), edge) * cavity)  # spleen
    image = blend(image, 0.40, step(0.25 * ellipse(y, x, (-0.24, 0.36), (0.24, 0.26), 0.5), edge) * cavity)  # stomach
    image = blend(image, 0.02, step(0.12 * ellipse(y, x, (-0.36, 0.36), (0.09, 0.16)), edge) * cavity)  # its gas

    right = 0.45 * ellipse(y, x, (-0.02, -0.42), (rng.uniform(0.52, 0.58), rng.uniform(0.42, 0.47)))
    left = 0.28 * ellipse(y, x, (-0.24, -0.02), (0.20, rng.uniform(0.40, 0.50)), 0.1)
    depth = np.minimum(np.maximum(right, left), wall - 0.12)
    liver = step(depth, edge)
    healthy = rng.uniform(0.55, 0.61)
    value = changed(lesions, "steatosis", healthy, 0.36, 0.47)
    tissue = value + 0.020 * fractal(rng, size, 8, 2)
    vessel = np.exp(-((noise(rng, size, 5) / 0.09) ** 2)) * step(depth - 0.08, 0.04) * (noise(rng, size, 3) > -0.2)
    image = blend(image, tissue + (0.13 + 0.5 * (healthy - value)) * vessel, liver)
    mask = liver > 0.5 if "steatosis" in lesions else np.zeros((size, size), dtype=bool)
    image, mask = paint(PAINTERS, Abdomen(plane, depth, liver), image, mask, lesions)
    return Drawing((image + 0.012 * rng.standard_normal((size, size), dtype=np.float32))[None], mask)


def _ribs(plane: Grid, wall: Field, radii: Point, rng: Generator) -> Field:
    """Cut ribs along the body wall, [S, S] weights."""
    turn = np.arctan2(plane.y / radii[0], plane.x / radii[1])
    along = step(np.sin(11 * turn + rng.uniform(0, 6)) - 0.55, 0.1)
    within_wall: Field = np.exp(-(((wall - 0.09) / 0.022) ** 2))
    return along * within_wall * (plane.y < 0.55)


def _spine_and_vessels(plane: Grid, image: Field, cavity: Field, rng: Generator) -> Field:
    """Back muscles, vertebra with canal and spinous process, aorta and vena cava laid over `image`."""
    y, x, edge = plane.y, plane.x, 0.8 * plane.pixel
    image = blend(image, 0.45, 0.9 * step(0.25 * ellipse(y, x, (0.42, 0.0), (0.22, 0.34)), edge) * cavity)
    bone = 0.86 + 0.05 * noise(rng, plane.size, 9)
    image = blend(image, bone, step(0.14 * ellipse(y, x, (0.36, 0.0), (0.13, 0.15)), edge))
    image = blend(image, 0.30, step(0.05 * ellipse(y, x, (0.53, 0.0), (0.045, 0.055)), edge))
    process = step(0.03 - np.abs(x), edge) * step(0.09 - np.abs(y - 0.66), edge) * (y < 0.72)
    image = blend(image, 0.85, process)
    image = blend(image, 0.74, step(0.065 * ellipse(y, x, (0.17, 0.07), (0.065, 0.065)), edge))
    return blend(image, 0.62, step(0.07 * ellipse(y, x, (0.14, -0.13), (0.06, 0.08)), edge))


def _metastases(abdomen: Abdomen, image: Field, rng: Generator) -> tuple[Field, Mask]:
    mask = np.zeros(image.shape, dtype=bool)
    for _ in range(rng.integers(2, 6)):
        centre = abdomen.somewhere_in_liver(rng)
        inside = blob(rng, abdomen.plane, centre, rng.uniform(0.06, 0.12), 0.22, 7)
        area = step(inside, 0.022) * abdomen.liver
        image = blend(image, rng.uniform(0.34, 0.40), 0.9 * area)
        image = image + 0.07 * np.exp(-((inside / 0.018) ** 2)) * abdomen.liver
        mask |= area > 0.5
    return image, mask


def _hypervascular_mass(abdomen: Abdomen, image: Field, rng: Generator) -> tuple[Field, Mask]:
    inside = blob(rng, abdomen.plane, abdomen.somewhere_in_liver(rng), rng.uniform(0.12, 0.20), 0.16, 6)
    area = step(inside, 0.65 * abdomen.plane.pixel) * abdomen.liver
    value = rng.uniform(0.80, 0.92) + 0.09 * np.tanh(noise(rng, abdomen.plane.size, 12))
    return blend(image, value, 0.9 * area), area > 0.5


def _cyst(abdomen: Abdomen, image: Field, rng: Generator) -> tuple[Field, Mask]:
    inside = blob(rng, abdomen.plane, abdomen.somewhere_in_liver(rng), rng.uniform(0.11, 0.19), 0.04, 4)
    area = step(inside, 0.65 * abdomen.plane.pixel) * abdomen.liver
    return blend(image, 0.16, area), area > 0.5


PAINTERS: dict[str, Painter[Abdomen]] = {
    "hypodense metastases": _metastases,
    "hypervascular mass": _hypervascular_mass,
    "hepatic cyst": _cyst,
}
KINDS = (*PAINTERS, "steatosis")
