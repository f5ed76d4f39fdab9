"""Predictions as pictures: an image beside its heatmap or its findings, and a page of the supports."""

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from fed_fsad.data.samples import Image
from fed_fsad.evaluation.gallery import HEAT, overlay

SIDE = 320
"""Pixels a side of an image in a picture."""
TILE = 160
"""The same on the page of supports."""
GAP, LINE, BAR, SCALE, TEXT = 8, 18, 16, 90, 440
"""Pixels: between things, of a line of text, width of the colour bar, of it with its numbers, of a column of text."""
PAPER, INK, ALARM = (255, 255, 255), (32, 32, 32), (192, 0, 0)
COLUMNS = 6

Scale = tuple[float, float]
"""Map values of the darkest and of the brightest colour."""


def map_picture(image: Image, heat: NDArray[np.float32], scale: Scale, lines: Sequence[str]) -> bytes:
    """A PNG: the image [3, SIDE, SIDE], the same under its map [S, S], the colour scale, and what is said of it."""
    smooth = Pillow.fromarray(heat).resize((SIDE, SIDE), Pillow.Resampling.BILINEAR)
    canvas, draw = _canvas(3 * GAP + 2 * SIDE + SCALE, 2 * GAP + SIDE + LINE * len(lines))
    canvas.paste(_shown(image), (GAP, GAP))
    canvas.paste(Pillow.fromarray(overlay(image, np.asarray(smooth), *scale)), (2 * GAP + SIDE, GAP))
    left = 3 * GAP + 2 * SIDE
    ramp = HEAT(np.linspace(1, 0, SIDE))[:, None, :3].repeat(BAR, axis=1)
    canvas.paste(Pillow.fromarray(np.round(ramp * 255).astype(np.uint8)), (left, GAP))
    for value, top in ((scale[1], GAP), (scale[0], GAP + SIDE - LINE)):
        draw.text((left + BAR + 4, top), f"{value:.3g}", fill=INK, font=_font())
    _write(draw, lines, GAP, GAP + SIDE)
    return _png(canvas)


def finding_picture(image: Image, lines: Sequence[str]) -> bytes:
    """A PNG: the image [3, SIDE, SIDE] beside what is said of it."""
    canvas, draw = _canvas(3 * GAP + SIDE + TEXT, 2 * GAP + max(SIDE, LINE * len(lines)))
    canvas.paste(_shown(image), (GAP, GAP))
    _write(draw, lines, 2 * GAP + SIDE, GAP)
    return _png(canvas)


def support_sheet(images: Sequence[Image], captions: Sequence[str], misfits: Sequence[bool]) -> bytes:
    """A PNG of all supports [3, TILE, TILE], numbered as in supports.csv; captions of misfits are red."""
    rows = -(-len(images) // COLUMNS)
    columns = min(COLUMNS, len(images))
    canvas, draw = _canvas(GAP + columns * (TILE + GAP), GAP + rows * (TILE + LINE + GAP))
    for place, (image, caption, misfit) in enumerate(zip(images, captions, misfits, strict=True)):
        left = GAP + place % COLUMNS * (TILE + GAP)
        top = GAP + place // COLUMNS * (TILE + LINE + GAP)
        canvas.paste(_shown(image), (left, top))
        draw.text((left, top + TILE), caption, fill=ALARM if misfit else INK, font=_font())
    return _png(canvas)


def _canvas(width: int, height: int) -> tuple[Pillow.Image, ImageDraw.ImageDraw]:
    canvas = Pillow.new("RGB", (width, height), PAPER)
    return canvas, ImageDraw.Draw(canvas)


def _write(draw: ImageDraw.ImageDraw, lines: Sequence[str], left: int, top: int) -> None:
    for number, line in enumerate(lines):
        draw.text((left, top + number * LINE), line, fill=INK, font=_font())


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(13)


def _shown(image: Image) -> Pillow.Image:
    return Pillow.fromarray(np.round(image.transpose(1, 2, 0) * 255).astype(np.uint8))


def _png(canvas: Pillow.Image) -> bytes:
    file = BytesIO()
    canvas.save(file, "PNG")
    return file.getvalue()
