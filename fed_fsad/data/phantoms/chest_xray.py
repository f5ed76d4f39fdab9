"""Frontal chest X-ray (ours)."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from fed_fsad.data.phantoms.canvas import (
    Drawing,
    Field,
    Grid,
    Lesions,
    Painter,
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
class Lung:
    """One lung. side: -1 left in the image, 1 right. [S, S] distances: depth inside it, across from the midline,
    above the diaphragm."""

    side: int
    depth: Field
    across: Field
    above: Field


@dataclass(frozen=True)
class Thorax:
    """A chest without painted lesions; y: [S, S] bent rows, x: [S, S] from the midline, the rest weights [S, S]."""

    plane: Grid
    y: Field
    x: Field
    middle: float
    width: float
    body: Field
    lungs: tuple[Lung, Lung]
    aerated: Field

    def either_lung(self, rng: Generator) -> Lung:
        """The left or the right lung."""
        return self.lungs[rng.integers(2)]


def draw(size: int, lesions: Lesions, rng: Generator) -> Drawing:
    """One radiograph; `rng` draws the anatomy, each lesion draws from its own stream."""
    thorax = _thorax(grid(size), rng)
    image = blend(np.full((size, size), 0.03, dtype=np.float32), 0.62, thorax.body)
    lung = 0.20 + 0.03 * noise(rng, size, 3) + 0.26 * _vessels(thorax, rng)
    image = blend(image, lung, 0.92 * thorax.aerated) + 0.085 * _ribs(thorax, rng)
    spine = 0.095 - np.abs(thorax.x + 0.01 * noise(rng, size, 3))
    image = blend(image, 0.74, 0.75 * step(spine, 0.02))
    image = blend(image, 0.72, 0.8 * step(0.15 * ellipse(thorax.plane.y, thorax.x, (-0.30, 0.0), (0.55, 0.17)), 0.02))

    heart = _heart(thorax, changed(lesions, "cardiomegaly", rng.uniform(0.88, 1.10), 1.25, 1.6))
    image = blend(image, 0.76, 0.93 * step(0.3 * heart, 0.02))
    image = image + 0.13 * _clavicles(thorax) + 0.015 * fractal(rng, size, 4, 3)
    enlarged = "cardiomegaly" in lesions
    mask = (heart > 0) & (thorax.plane.y < 0.6) if enlarged else np.zeros((size, size), dtype=bool)
    image, mask = paint(PAINTERS, thorax, image, mask, lesions)
    return Drawing(image[None], mask)


def _thorax(plane: Grid, rng: Generator) -> Thorax:
    """The outline of body and lungs."""
    middle, width = rng.uniform(-0.04, 0.04), rng.uniform(0.92, 1.04)
    y, bent = warp(rng, plane, 0.02)
    bent = bent - middle
    apex, bases = rng.uniform(-0.80, -0.72), (rng.uniform(0.50, 0.62), rng.uniform(0.58, 0.70))
    lungs = []
    for side, base in zip((-1, 1), bases, strict=True):
        across = side * bent
        top = y - apex - 0.9 * np.clip(across - 0.36, -1, 1) ** 2
        diaphragm = base + 0.55 * (across - 0.40) ** 2 - 0.03 - y
        chest_wall = 0.80 * width - 0.26 * np.clip(-y, 0, 1) ** 2 - across
        mediastinum = across - 0.13 - 0.06 * np.clip(y, 0, 1)
        depth = np.minimum(np.minimum(top, diaphragm), np.minimum(chest_wall, mediastinum))
        lungs.append(Lung(side, depth, across, diaphragm))
    body = step(ellipse(y, bent, (0.35, 0.0), (1.5, width)), 0.08)
    aerated = np.maximum(step(lungs[0].depth, 0.03), step(lungs[1].depth, 0.03))
    return Thorax(plane, y, plane.x - middle, middle, width, body, (lungs[0], lungs[1]), aerated)


def _vessels(thorax: Thorax, rng: Generator) -> Field:
    """Vessels that radiate from both hila, [S, S]."""
    vessels = np.zeros_like(thorax.x)
    for side in (-1, 1):
        lateral = side * thorax.x - 0.14
        turn = np.arctan2(thorax.plane.y, lateral) * rng.uniform(9, 13)
        wave = np.sin(turn + 3 * noise(rng, thorax.plane.size, 4) + rng.uniform(0, 6))
        fade = np.exp(-np.hypot(thorax.plane.y, lateral) / 0.33)
        vessels = vessels + np.clip(wave - 0.45, 0, 1) * fade * (side * thorax.x > 0)
    return vessels


def _ribs(thorax: Thorax, rng: Generator) -> Field:
    """Arched posterior ribs on both sides, [S, S] weights."""
    spacing, start = rng.uniform(0.155, 0.18), rng.uniform(0, 0.15)
    lateral = np.abs(thorax.x)
    turn = (thorax.plane.y + 1.08 * (lateral - 0.35) ** 2 - 0.25 * lateral + start) / spacing
    bone = step(0.17 - np.abs(turn - np.floor(turn) - 0.5), 0.04)
    reach = step(lateral - 0.10, 0.03) * step(0.86 * thorax.width - lateral, 0.03) * step(0.62 - thorax.plane.y, 0.1)
    return bone * reach * thorax.body


def _heart(thorax: Thorax, scale: float) -> Field:
    """> 0 inside the heart's shadow, [S, S]."""
    extra, x = scale - 1, thorax.lungs[1].across
    return ellipse(thorax.y, x, (0.22, 0.14 + 0.03 * extra), (0.33 + 0.1155 * extra, 0.30 * scale), -0.35)


def _clavicles(thorax: Thorax) -> Field:
    """Both collar bones, [S, S] weights."""
    lateral = np.abs(thorax.x)
    bone = 0.028 - np.abs(thorax.plane.y + 0.66 + 0.16 * lateral - 0.12 * np.sin(3 * lateral))
    return step(bone, 0.012) * step(lateral - 0.08, 0.02) * step(0.75 - lateral, 0.03)


def _nodules(thorax: Thorax, image: Field, rng: Generator) -> tuple[Field, Mask]:
    spots = np.zeros_like(image)
    for _ in range(rng.integers(1, 3)):
        x = thorax.either_lung(rng).side * rng.uniform(0.36, 0.62) + thorax.middle
        spot = blob(rng, thorax.plane, (rng.uniform(-0.45, 0.35), x), rng.uniform(0.055, 0.10), 0.06)
        spots = np.maximum(spots, step(spot, 0.014))
    return blend(image, 0.74, 0.82 * spots), spots > 0.5


def _consolidation(thorax: Thorax, image: Field, rng: Generator) -> tuple[Field, Mask]:
    size, side = thorax.plane.size, thorax.either_lung(rng).side
    centre = (rng.uniform(-0.35, 0.30), side * rng.uniform(0.36, 0.52) + thorax.middle)
    area = step(blob(rng, thorax.plane, centre, rng.uniform(0.22, 0.33), 0.42, 6), 0.06) * thorax.aerated
    turn = np.arctan2(thorax.plane.y, side * thorax.x - 0.14)
    bronchi = np.clip(np.sin(9 * turn + 2 * noise(rng, size, 5)) - 0.6, 0, 1)  # air-filled tubes stay dark
    weight = 0.80 * area * (0.85 + 0.15 * np.tanh(noise(rng, size, 9)))
    return blend(image, 0.70 - 0.25 * bronchi, weight), area > 0.5


def _effusion(thorax: Thorax, image: Field, rng: Generator) -> tuple[Field, Mask]:
    lung = thorax.either_lung(rng)
    across = lung.across
    rise = 0.85 * np.clip(across - 0.42, 0, 1) ** 1.3 - 0.10 * np.clip(0.35 - across, 0, 1)  # the meniscus
    fluid = step(thorax.y - rng.uniform(0.10, 0.34) + rise, 0.022) * step(across - 0.12, 0.02)
    fluid = fluid * step(0.80 * thorax.width - across, 0.03) * step(lung.above + 0.06, 0.03) * thorax.body
    return blend(image, 0.78, 0.9 * fluid), fluid > 0.5


def _pneumothorax(thorax: Thorax, image: Field, rng: Generator) -> tuple[Field, Mask]:
    lung, row = thorax.either_lung(rng), thorax.plane.y
    collapsed = lung.depth - rng.uniform(0.16, 0.28) * (1 - 0.35 * np.clip(row + 0.2, -0.5, 0.5))
    lateral = thorax.aerated * step(lung.across - 0.34, 0.03) * step(0.45 - row, 0.08)
    air = lateral * step(-collapsed, 0.012)
    return blend(image, 0.06, 0.9 * air) + 0.28 * lateral * np.exp(-((collapsed / 0.014) ** 2)), air > 0.5


PAINTERS: dict[str, Painter[Thorax]] = {
    "consolidation": _consolidation,
    "pneumothorax": _pneumothorax,
    "pulmonary nodule": _nodules,
    "pleural effusion": _effusion,
}
KINDS = (*PAINTERS, "cardiomegaly")
