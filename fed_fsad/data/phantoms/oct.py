"""Optical coherence tomography of the macula, one B-scan (ours)."""

from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from fed_fsad.data.phantoms.canvas import (
    Drawing,
    Field,
    Grid,
    Lesion,
    Lesions,
    Painter,
    blend,
    ellipse,
    grid,
    noise,
    paint,
    step,
)
from fed_fsad.data.samples import Mask

LAYERS = (
    (1.0, 0.78),
    (0.86, 0.55),
    (0.72, 0.66),
    (0.60, 0.38),
    (0.50, 0.60),
    (0.40, 0.30),
    (0.24, 0.34),
    (0.12, 0.55),
    (0.07, 0.28),
)
"""Retinal layers from inside out: upper border as a share of the thickness, brightness."""


@dataclass(frozen=True)
class Scan:
    """A retina's shape, per column [1, S]: `floor` the undisturbed pigment epithelium, `epithelium` with drusen on it,
    `bottom` and `thickness` of the neural retina; `height` [S, S] is 0 at its bottom and 1 at its surface."""

    plane: Grid
    fovea: float
    floor: Field
    epithelium: Field
    bottom: Field
    thickness: Field
    height: Field
    swollen_at: float


def draw(size: int, lesions: Lesions, rng: Generator) -> Drawing:
    """One scan; `rng` draws the anatomy, each lesion draws from its own stream."""
    scan = _shape(grid(size), lesions, rng)
    image = _layers(scan, rng)
    mask = np.zeros((size, size), dtype=bool)
    below = scan.plane.y - scan.epithelium
    if "drusen" in lesions:
        deposit = (below > -0.04) & (scan.plane.y < scan.floor - 0.02) & (scan.floor - scan.epithelium > 0.02)
        mask |= deposit
    if "subretinal fluid" in lesions:
        mask |= (scan.plane.y > scan.bottom) & (below < -0.03) & (scan.epithelium - scan.bottom > 0.03)
    image, mask = paint(PAINTERS, scan, image, mask, lesions)
    image = image * np.clip(1 + 0.06 * noise(rng, size, 3)[:1], 0.7, 1.3)
    speckle = rng.uniform(0.16, 0.21) * rng.standard_normal((size, size), dtype=np.float32)
    image = image * (1 + speckle) + 0.02 * np.abs(rng.standard_normal((size, size), dtype=np.float32))
    return Drawing(image[None], mask)


def _shape(plane: Grid, lesions: Lesions, rng: Generator) -> Scan:
    """Where the retina's borders run, with the lesions that displace them."""
    x, size = plane.x[:1], plane.size
    fovea, tilt, curve = rng.uniform(-0.18, 0.18), rng.uniform(-0.10, 0.10), rng.uniform(0.02, 0.16)
    floor = 0.22 + rng.uniform(-0.16, 0.16) + tilt * x + curve * x**2 + 0.012 * noise(rng, size, 3)[:1]
    thickness = rng.uniform(0.46, 0.62) * (1 + 0.05 * noise(rng, size, 2)[:1])
    pit = rng.uniform(0.50, 0.62) * np.exp(-((x - fovea) ** 2) / (2 * rng.uniform(0.12, 0.17) ** 2))
    epithelium, swollen_at = floor, fovea
    if "drusen" in lesions:
        epithelium = floor - _bumps(lesions["drusen"], x)
        thickness = thickness - 0.8 * (floor - epithelium)  # the surface hardly moves
    bottom = epithelium
    if "subretinal fluid" in lesions:
        bottom = epithelium - _lift(lesions["subretinal fluid"], x, fovea)
    thickness = thickness * (1 - pit)
    if "cystoid oedema" in lesions:
        lesion = lesions["cystoid oedema"]
        swollen_at = fovea + lesion.rng.uniform(-0.1, 0.1)
        swelling = lesion.rng.uniform(0.10, 0.22) * np.exp(-(((x - swollen_at) / 0.35) ** 2))
        filled = thickness / (1 - pit) * pit * lesion.rng.uniform(0.4, 0.7)  # the pit flattens
        thickness = thickness + lesion.contrast * (swelling + filled)
    height = (bottom - plane.y) / np.maximum(thickness, 1e-3)
    return Scan(plane, fovea, floor, epithelium, bottom, thickness, height, swollen_at)


def _bumps(lesion: Lesion, x: Field) -> Field:
    """Deposits under the pigment epithelium, their height per column, [1, S]."""
    rng, bumps = lesion.rng, np.zeros_like(x)
    for _ in range(rng.integers(3, 7)):
        top = rng.uniform(0.07, 0.14) * np.exp(-(((x - rng.uniform(-0.8, 0.8)) / rng.uniform(0.05, 0.09)) ** 2))
        bumps = np.maximum(bumps, top)
    return bumps * lesion.contrast


def _lift(lesion: Lesion, x: Field, fovea: float) -> Field:
    """How far fluid lifts the retina off its epithelium, per column, [1, S]."""
    centre, reach = fovea + lesion.rng.uniform(-0.3, 0.3), lesion.rng.uniform(0.22, 0.38)
    lift: Field = lesion.rng.uniform(0.13, 0.24) * np.exp(-(((x - centre) / reach) ** 4))
    return lift * lesion.contrast


def _layers(scan: Scan, rng: Generator) -> Field:
    """Vitreous, retina, pigment epithelium and choroid, [S, S]."""
    size, edge, row = scan.plane.size, 0.8 * scan.plane.pixel, scan.plane.y
    image = np.full((size, size), 0.05, dtype=np.float32)
    for border, value in LAYERS:
        image = blend(image, value * rng.uniform(0.93, 1.07), step((border - scan.height) * scan.thickness, edge))
    gap = step(row - scan.bottom, edge) * (scan.epithelium - scan.bottom > 0)
    image = blend(image, 0.06, gap)  # fluid between retina and epithelium
    image = blend(image, 0.92, step(row - scan.epithelium + 0.035, edge))
    deposit = step(row - scan.epithelium - 0.03, edge) * (scan.floor - scan.epithelium > 0)
    image = blend(image, 0.55, 0.8 * deposit)
    choroid = 0.42 * np.exp(-np.clip(row - scan.floor, 0, 2) / 0.38) * (1 + 0.35 * np.tanh(noise(rng, size, 9)))
    return blend(image, choroid, step(row - scan.floor - 0.04, 0.65 * scan.plane.pixel))


def _cysts(scan: Scan, image: Field, rng: Generator) -> tuple[Field, Mask]:
    size, holes = scan.plane.size, np.zeros_like(image)
    bent = scan.plane.y + 0.01 * noise(rng, size, 6)
    for _ in range(rng.integers(4, 8)):
        level, x = rng.uniform(0.35, 0.75), scan.swollen_at + rng.normal() * 0.17
        column = int(np.clip((x + 1) / 2 * size, 0, size - 1))
        centre = (float(scan.bottom[0, column] - level * scan.thickness[0, column]), x)
        radii = (rng.uniform(0.05, 0.10), rng.uniform(0.045, 0.085))
        hole = step(0.07 * ellipse(bent, scan.plane.x, centre, radii), 0.8 * scan.plane.pixel)
        holes = np.maximum(holes, hole * (scan.height > 0.12) * (scan.height < 0.93))
    return blend(image, 0.06, holes), holes > 0.5


def _macular_hole(scan: Scan, image: Field, rng: Generator) -> tuple[Field, Mask]:
    waist = np.abs(2 * np.clip(scan.height, 0, 1) - 1)
    half = rng.uniform(0.09, 0.16) * (1 + 0.45 * waist**2)
    gap = step(half - np.abs(scan.plane.x - scan.fovea), 0.8 * scan.plane.pixel)
    gap = gap * step(scan.height * scan.thickness - 0.03, 0.8 * scan.plane.pixel)
    return blend(image, 0.05, gap), (gap > 0.5) & (scan.height < 1.02)


PAINTERS: dict[str, Painter[Scan]] = {"cystoid oedema": _cysts, "macular hole": _macular_hole}
KINDS = (*PAINTERS, "subretinal fluid", "drusen")
