"""Contrast-enhanced brain MRI, one axial slice (ours)."""

import math
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
class Head:
    """A head without painted lesions.

    depth: [S, S], distance below the brain's surface. brain, ventricles: [S, S] weights. The rest is its pose.
    """

    plane: Grid
    depth: Field
    brain: Field
    ventricles: Field
    centre: Point
    radii: Point
    angle: float

    def place(self, along: float, across: float) -> Point:
        """The image point at `along` (front to back) and `across` (left to right) of the head's own axes."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return self.centre[0] + along * cos + across * sin, self.centre[1] - along * sin + across * cos

    def somewhere_deep(self, rng: Generator) -> Point:
        """A random point of either hemisphere."""
        return self.place(rng.uniform(-0.42, 0.42), rng.choice([-1, 1]) * rng.uniform(0.20, 0.36))


def draw(size: int, lesions: Lesions, rng: Generator) -> Drawing:
    """One slice; `rng` draws the anatomy, each lesion draws from its own stream."""
    plane = grid(size)
    edge = 0.8 * plane.pixel
    centre, angle = (rng.uniform(-0.03, 0.03), rng.uniform(-0.03, 0.03)), rng.uniform(-0.10, 0.10)
    radii = (rng.uniform(0.80, 0.90), rng.uniform(0.64, 0.74))
    inside = ellipse(*warp(rng, plane, 0.018), centre, radii, angle) * (sum(radii) / 2)
    image = np.zeros((size, size), dtype=np.float32)
    for below, value in ((0.0, rng.uniform(0.55, 0.70)), (0.055, 0.10), (0.10, 0.22)):  # scalp, skull, fluid
        image = blend(image, value, step(inside - below, edge))

    folds = 0.5 * noise(rng, size, 13) + 0.5 * noise(rng, size, 20)
    depth = inside - 0.125
    cos, sin = math.cos(angle), math.sin(angle)
    along = (plane.y - centre[0]) * cos - (plane.x - centre[1]) * sin
    across = (plane.y - centre[0]) * sin + (plane.x - centre[1]) * cos
    width = changed(lesions, "hydrocephalus", rng.uniform(0.7, 1.35), 1.5, 2.8)
    ventricles = _ventricles(along, across, width, edge)
    brain = step(depth + 0.02 * folds, edge)
    tissue = _tissue(rng, depth, folds, along, across)
    tissue = blend(tissue, 0.20, ventricles) + 0.018 * fractal(rng, size, 6, 2)
    image = blend(image, tissue, brain)

    mask = ventricles > 0.5 if "hydrocephalus" in lesions else np.zeros((size, size), dtype=bool)
    head = Head(plane, depth, brain, ventricles, centre, radii, angle)
    image, mask = paint(PAINTERS, head, image, mask, lesions)
    return Drawing(image[None], mask)


def _tissue(rng: Generator, depth: Field, folds: Field, along: Field, across: Field) -> Field:
    """Grey and white matter, sulci, the midline fissure and deep nuclei, [S, S]."""
    grey, white = rng.uniform(0.40, 0.46), rng.uniform(0.58, 0.66)
    tissue = blend(np.full_like(depth, grey), white, step(depth - 0.085 + 0.065 * folds, 0.02))
    tissue = blend(tissue, 0.24, 0.75 * step(0.16 - np.abs(folds), 0.05) * step(0.13 - depth, 0.03))
    midline = np.abs(across + 0.01 * noise(rng, depth.shape[0], 4))
    tissue = blend(tissue, 0.25, 0.8 * step(0.012 - midline, 0.008) * step(np.abs(along) - 0.30, 0.03))
    for side in (-1, 1):
        nucleus = ellipse(along, across, (0.06, side * 0.20), (0.15, 0.075), side * 0.25)
        tissue = blend(tissue, grey + 0.03, 0.8 * step(0.1 * nucleus, 0.02))
    return tissue


def _ventricles(along: Field, across: Field, scale: float, edge: float) -> Field:
    """The two lateral ventricles, curved away from the midline, [S, S] weights."""
    length = 0.30 + 0.06 * scale
    half: Field = 0.038 * scale * np.sqrt(np.clip(1 - (along / length) ** 2, 0, 1))
    middle = 0.065 + 0.03 * (scale - 1) + 0.30 * (along - 0.02) ** 2
    left, right = (step(half - np.abs(side * across - middle), edge) for side in (-1, 1))
    either: Field = np.maximum(left, right)
    return either * (half > 0.003)


def _ring_mass(head: Head, image: Field, rng: Generator) -> tuple[Field, Mask]:
    plane, centre, radius = head.plane, head.somewhere_deep(rng), rng.uniform(0.09, 0.19)
    inside = blob(rng, plane, centre, radius, 0.18)
    swelling = step(blob(rng, plane, centre, 1.6 * radius, 0.25), 0.05)
    image = blend(image, 0.34, 0.75 * swelling * head.brain)
    image = blend(image, rng.uniform(0.85, 1.0), step(inside, 0.8 * plane.pixel) * head.brain)
    core = step(inside - rng.uniform(0.028, 0.05), plane.pixel) * head.brain
    return blend(image, rng.uniform(0.12, 0.26), core), (inside > 0) & (head.brain > 0.5)


def _extra_axial_mass(head: Head, image: Field, rng: Generator) -> tuple[Field, Mask]:
    turn = rng.uniform(-2.6, 2.6)
    centre = head.place(0.77 * math.cos(turn) * head.radii[0], 0.77 * math.sin(turn) * head.radii[1])
    mass = blob(rng, head.plane, centre, rng.uniform(0.13, 0.21), 0.07)
    inside = np.minimum(mass, head.depth + 0.03)  # its broad base lies on the skull
    value = rng.uniform(0.80, 0.95) + 0.02 * fractal(rng, head.plane.size, 6, 2)
    return blend(image, value, step(inside, 0.8 * head.plane.pixel)), inside > 0


def _oedema(head: Head, image: Field, rng: Generator) -> tuple[Field, Mask]:
    area = step(blob(rng, head.plane, head.somewhere_deep(rng), rng.uniform(0.22, 0.34), 0.38, 6), 0.045)
    area = area * head.brain * (1 - head.ventricles) * step(head.depth - 0.05, 0.03)
    value = rng.uniform(0.22, 0.30) + 0.02 * fractal(rng, head.plane.size, 6, 2)
    return blend(image, value, 0.85 * area), area > 0.45


def _microbleeds(head: Head, image: Field, rng: Generator) -> tuple[Field, Mask]:
    spots = np.zeros_like(image)
    for _ in range(rng.integers(4, 9)):
        centre = head.place(rng.uniform(-0.5, 0.5), rng.uniform(-0.42, 0.42))
        spot = blob(rng, head.plane, centre, rng.uniform(0.028, 0.048), 0.1)
        spots = np.maximum(spots, step(spot, 0.8 * head.plane.pixel) * head.brain)
    return blend(image, 0.06, spots), spots > 0.5


PAINTERS: dict[str, Painter[Head]] = {
    "vasogenic oedema": _oedema,
    "ring-enhancing mass": _ring_mass,
    "extra-axial mass": _extra_axial_mass,
    "microbleeds": _microbleeds,
}
KINDS = (*PAINTERS, "hydrocephalus")
