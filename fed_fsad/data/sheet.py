"""A contact sheet: some images of every class of a data set on one page, masks outlined."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont
from scipy import ndimage

from fed_fsad.data.samples import Mask, Sample
from fed_fsad.seeds import derive

TILE = 128
GAP = 6
LABEL = 20
"""Pixels: side of an image, space between images, height of a class's line of text."""
OUTLINE = (255, 64, 64)
PAPER, INK = (255, 255, 255), (32, 32, 32)


def contact_sheet(samples: Sequence[Sample], columns: int, seed: int, progress: Callable[[int, int], None]) -> bytes:
    """A PNG with one row per class, normal first, of up to `columns` images drawn by the seed.

    An image of two classes may stand in both rows. The order of `samples` changes nothing. Raises DataError for an
    image that cannot be read.
    """
    rows = _rows(samples, columns, seed)
    height = GAP + len(rows) * (LABEL + TILE + GAP)
    sheet = Pillow.new("RGB", (GAP + columns * (TILE + GAP), height), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    done, of = 0, sum(len(chosen) for _, chosen in rows)
    for number, (title, chosen) in enumerate(rows):
        top = GAP + number * (LABEL + TILE + GAP)
        draw.text((GAP, top), title, fill=INK, font=font)
        for place, sample in enumerate(chosen):
            sheet.paste(_tile(sample), (GAP + place * (TILE + GAP), top + LABEL))
            done += 1
            progress(done, of)
    file = BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _rows(samples: Sequence[Sample], columns: int, seed: int) -> list[tuple[str, list[Sample]]]:
    classes: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        for name in sample.categories or ("normal",):
            classes[name].append(sample)
    rows = []
    for name in sorted(classes, key=lambda name: (name != "normal", name)):
        chosen = sorted(classes[name], key=lambda sample: derive(seed, "preview", sample.id))[:columns]
        rows.append((f"{name} ({len(classes[name])} images)", chosen))
    return rows


def _tile(sample: Sample) -> Pillow.Image:
    pixels = np.round(sample.source.image(TILE).transpose(1, 2, 0) * 255).astype(np.uint8)
    mask = sample.source.mask(TILE)
    if mask is not None:
        pixels[_outline(mask)] = OUTLINE
    return Pillow.fromarray(pixels)


def _outline(mask: Mask) -> Mask:
    """The pixels around what is marked, so that nothing marked is covered."""
    return np.asarray(ndimage.binary_dilation(mask) & ~mask, dtype=np.bool_)
