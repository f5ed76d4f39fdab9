"""Procedural outlines: where the regions of formula-made images lie (ours)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pretraining.textures import Field, field, smooth_noise


@dataclass(frozen=True)
class Shape:
    """One outline. Coordinates and lengths are in half image sides.

    kind: a key of SHAPES. y, x: its centre. radius; aspect (width over height); angle in radians.
    edge: width of its rim, from sharp (0.01) to fading (0.2). wobble: how far the rim leaves the formula.
    detail: what the kind makes of it (corners, thickness, number of parts), in [0, 1].
    """

    kind: str
    y: float
    x: float
    radius: float
    aspect: float
    angle: float
    edge: float
    wobble: float
    detail: float

    def cover(self, rng: np.random.Generator, y: Field, x: Field) -> Field:
        """How much of each pixel it covers, 0..1, [S, S]."""
        dy, dx = y - self.y, x - self.x
        u = (dy * np.cos(self.angle) + dx * np.sin(self.angle)) / self.radius
        v = (dx * np.cos(self.angle) - dy * np.sin(self.angle)) / (self.radius * self.aspect)
        inside = SHAPES[self.kind](self, rng, u, v) + self.wobble * smooth_noise(rng, y.shape[0], 6)
        return field(1 / (1 + np.exp(-np.clip(inside * self.radius / self.edge * 4, -30, 30))))

    def jittered(self, rng: np.random.Generator, amount: float) -> "Shape":
        """The same shape as another image shows it: moved, scaled and turned a little."""
        return replace(
            self,
            y=self.y + 0.06 * amount * rng.standard_normal(),
            x=self.x + 0.06 * amount * rng.standard_normal(),
            radius=self.radius * np.exp(0.12 * amount * rng.standard_normal()),
            aspect=self.aspect * np.exp(0.08 * amount * rng.standard_normal()),
            angle=self.angle + 0.15 * amount * rng.standard_normal(),
        )


def sample_shape(rng: np.random.Generator, radius: tuple[float, float], spread: float) -> Shape:
    """A shape of any kind with a radius in that range and a centre within ± spread."""
    return Shape(
        kind=str(rng.choice(list(SHAPES))),
        y=rng.uniform(-spread, spread),
        x=rng.uniform(-spread, spread),
        radius=float(np.exp(rng.uniform(*np.log(radius)))),
        aspect=float(np.exp(rng.uniform(-0.7, 0.7))),
        angle=rng.uniform(0, 2 * np.pi),
        edge=float(np.exp(rng.uniform(np.log(0.015), np.log(0.15)))),
        wobble=rng.uniform(0, 0.2),
        detail=rng.uniform(0, 1),
    )


def _disc(s: Shape, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(1 - np.hypot(u, v))


def _box(s: Shape, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(1 - np.maximum(np.abs(u), np.abs(v)))


def _ring(s: Shape, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(0.1 + 0.15 * s.detail - np.abs(np.hypot(u, v) - 0.8))


def _polygon(s: Shape, rng: np.random.Generator, u: Field, v: Field) -> Field:
    corners = 3 + int(3 * s.detail)
    turn = np.arctan2(v, u) % (2 * np.pi / corners) - np.pi / corners
    return field(0.8 - np.hypot(u, v) * np.cos(turn))


def _star(s: Shape, rng: np.random.Generator, u: Field, v: Field) -> Field:
    points = 4 + int(5 * s.detail)
    return field(0.7 + 0.3 * np.cos(points * np.arctan2(v, u)) - np.hypot(u, v))


def _crescent(s: Shape, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(np.minimum(1 - np.hypot(u, v), np.hypot(u - 0.3 - 0.4 * s.detail, v) - 0.85))


def _band(s: Shape, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(np.minimum(0.12 + 0.25 * s.detail - np.abs(u + 0.3 * v**2), 1.3 - np.abs(v)))


def _lobes(s: Shape, rng: np.random.Generator, u: Field, v: Field) -> Field:
    return field(0.6 - np.minimum(np.hypot(u, v - 0.6), np.hypot(u, v + 0.6)))


def _scatter(s: Shape, rng: np.random.Generator, u: Field, v: Field) -> Field:
    best = np.full_like(u, -2)
    for _ in range(3 + int(6 * s.detail)):
        py, px = rng.uniform(-1, 1, 2)
        best = np.maximum(best, rng.uniform(0.15, 0.35) - np.hypot(u - py, v - px))
    return field(best)


def _threads(s: Shape, rng: np.random.Generator, u: Field, v: Field) -> Field:
    best = np.full_like(u, -2)
    for _ in range(1 + int(4 * s.detail)):
        turn, bend, shift = rng.uniform(0, np.pi), rng.uniform(-0.5, 0.5), rng.uniform(-0.6, 0.6)
        along, across = v * np.cos(turn) + u * np.sin(turn), u * np.cos(turn) - v * np.sin(turn)
        best = np.maximum(best, np.minimum(0.08 - np.abs(across - shift - bend * along**2), 1.2 - np.abs(along)))
    return field(best)


SHAPES: dict[str, Callable[[Shape, np.random.Generator, Field, Field], Field]] = {
    "disc": _disc,
    "box": _box,
    "ring": _ring,
    "polygon": _polygon,
    "star": _star,
    "crescent": _crescent,
    "band": _band,
    "lobes": _lobes,
    "scatter": _scatter,
    "threads": _threads,
}
