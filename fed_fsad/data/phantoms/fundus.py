"""Retinal fundus photograph, in colour (ours)."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image as Pillow
from PIL import ImageDraw

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
    fractal,
    grid,
    paint,
    rgb,
    step,
)
from fed_fsad.data.samples import Mask


@dataclass(frozen=True)
class Retina:
    """An eye ground without painted lesions. nasal: -1 or 1, where the disc lies. disc: [S, S] weights."""

    plane: Grid
    nasal: int
    macula: Point
    disc: Field


def draw(size: int, lesions: Lesions, rng: Generator) -> Drawing:
    """One photograph; `rng` draws the anatomy, each lesion draws from its own stream."""
    plane, nasal = grid(size), int(rng.choice([-1, 1]))
    view = step(rng.uniform(0.93, 0.98) - np.hypot(plane.y, plane.x), 0.8 * plane.pixel)
    colour = rgb(rng.uniform(0.70, 0.82), rng.uniform(0.34, 0.44), rng.uniform(0.14, 0.22))
    image = colour * (1 - 0.28 * (plane.y**2 + plane.x**2) + 0.05 * fractal(rng, size, 3, 3))

    centre = (rng.uniform(-0.08, 0.08), nasal * rng.uniform(0.42, 0.52))
    macula = (centre[0] + rng.uniform(0.0, 0.08), centre[1] - nasal * rng.uniform(0.62, 0.72))
    image = image * (1 - 0.38 * np.exp(-((plane.y - macula[0]) ** 2 + (plane.x - macula[1]) ** 2) / (2 * 0.13**2)))
    vessels = VesselTree(size, rng).grow(centre, nasal)
    image = image * (1 - rgb(0.38, 0.62, 0.55) * vessels)

    radius = rng.uniform(0.135, 0.17)
    cup_ratio = min(0.9, changed(lesions, "enlarged cup", rng.uniform(0.28, 0.48), 0.62, 0.82))
    dy, dx = plane.y - centre[0], plane.x - centre[1]
    disc = step(radius - np.hypot(0.92 * dy, dx), 0.8 * plane.pixel)
    cup = step(radius * cup_ratio - np.hypot(0.95 * dy, dx), 0.8 * plane.pixel)
    image = blend(image, rgb(0.93, 0.68, 0.36), disc * (1 - 0.45 * vessels))
    image = blend(image, rgb(1.0, 0.92, 0.70), cup * (1 - 0.25 * vessels))
    mask = disc > 0.5 if "enlarged cup" in lesions else np.zeros((size, size), dtype=bool)
    image, mask = paint(PAINTERS, Retina(plane, nasal, macula, disc), image, mask, lesions)
    return Drawing(image * view, mask & (view > 0.5))


class VesselTree:
    """Branching vessels on a canvas of twice the image's size."""

    def __init__(self, size: int, rng: Generator) -> None:
        self._size, self._rng = size, rng
        self._canvas = Pillow.new("L", (2 * size, 2 * size), 0)
        self._pen = ImageDraw.Draw(self._canvas)

    def grow(self, disc: Point, nasal: int) -> Field:
        """Two arcades above and two below the macula and a nasal vessel each, [S, S] in [0, 1]."""
        towards_macula = math.pi if nasal > 0 else 0.0
        for side in (-1, 1):
            for _ in range(2):
                heading = towards_macula + nasal * -side * self._rng.uniform(0.75, 1.25)
                bend, width = nasal * side * self._rng.uniform(0.55, 0.95), self._rng.uniform(0.011, 0.019)
                self._branch(disc, heading, width, self._rng.uniform(1.2, 1.7), bend, 0)
            away = math.pi - towards_macula + side * self._rng.uniform(0.3, 0.9)
            self._branch(disc, away, self._rng.uniform(0.010, 0.014), 0.5, 0.0, 1)
        fine = self._canvas.resize((self._size, self._size), Pillow.Resampling.BOX)
        return np.asarray(fine, dtype=np.float32) / 255

    def _branch(self, start: Point, heading: float, width: float, length: float, bend: float, order: int) -> None:
        """A winding vessel with side branches, up to second order; lengths in the plane, angles in radians."""
        rng, stride, (y, x) = self._rng, 0.05, start
        path = [start]
        for i in range(int(length / stride)):
            heading += bend * stride + rng.normal() * 0.10
            y, x = y + math.sin(heading) * stride, x + math.cos(heading) * stride
            path.append((y, x))
            if order < 2 and i > 2 and rng.random() < 0.17:
                turn, rest = rng.choice([-1, 1]) * rng.uniform(0.4, 0.9), (length - i * stride) * rng.uniform(0.4, 0.75)
                self._branch((y, x), heading + turn, width * 0.62, rest, bend * 0.3, order + 1)
        points = [((px + 1) * self._size, (py + 1) * self._size) for py, px in path]
        self._pen.line(points, fill=(255, 217, 166)[order], width=max(1, round(width * 2 * self._size)))


def _around(rng: Generator, low: float, high: float) -> Point:
    """A point at `low` to `high` from the image's centre."""
    turn, distance = rng.uniform(0, 2 * math.pi), rng.uniform(low, high)
    return distance * math.sin(turn), distance * math.cos(turn)


def _haemorrhages(retina: Retina, image: Field, rng: Generator) -> tuple[Field, Mask]:
    spots = np.zeros_like(retina.disc)
    for _ in range(rng.integers(3, 8)):
        spot = blob(rng, retina.plane, _around(rng, 0.2, 0.75), rng.uniform(0.04, 0.105), 0.35, 8)
        spots = np.maximum(spots, step(spot, 0.65 * retina.plane.pixel))
    return blend(image, rgb(0.30, 0.05, 0.04), 0.85 * spots), spots > 0.5


def _exudates(retina: Retina, image: Field, rng: Generator) -> tuple[Field, Mask]:
    y = retina.macula[0] + rng.uniform(-0.3, 0.3)
    x = retina.macula[1] + retina.nasal * rng.uniform(-0.15, 0.3)
    spots = np.zeros_like(retina.disc)
    for _ in range(rng.integers(10, 24)):
        centre = (y + rng.normal() * 0.19, x + rng.normal() * 0.19)
        spot = blob(rng, retina.plane, centre, rng.uniform(0.018, 0.042), 0.25, 8)
        spots = np.maximum(spots, step(spot, 0.5 * retina.plane.pixel) * (1 - retina.disc))
    return blend(image, rgb(0.98, 0.90, 0.52), 0.92 * spots), spots > 0.5


def _cotton_wool(retina: Retina, image: Field, rng: Generator) -> tuple[Field, Mask]:
    spots = np.zeros_like(retina.disc)
    for _ in range(rng.integers(2, 5)):
        spot = blob(rng, retina.plane, _around(rng, 0.3, 0.65), rng.uniform(0.07, 0.12), 0.3, 7)
        spots = np.maximum(spots, step(spot, 0.035) * (1 - retina.disc))
    return blend(image, rgb(0.92, 0.84, 0.72), 0.75 * spots), spots > 0.5


PAINTERS: dict[str, Painter[Retina]] = {
    "cotton wool spots": _cotton_wool,
    "hard exudates": _exudates,
    "retinal haemorrhage": _haemorrhages,
}
KINDS = (*PAINTERS, "enlarged cup")
