"""Phantoms written to disk as a data set: PNG images, masks, signs and a manifest."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import combinations
from pathlib import Path

import numpy as np
import yaml
from PIL import Image as Pillow

from fed_fsad.data.entries import SPLITS, Entry, Split
from fed_fsad.data.manifest import DEFAULT, write_manifest
from fed_fsad.data.phantoms.organs import ORGANS
from fed_fsad.data.phantoms.world import phantom
from fed_fsad.data.samples import Sample
from fed_fsad.data.signs import load_signs
from fed_fsad.durable import replace
from fed_fsad.errors import ConfigError
from fed_fsad.names import suggestion
from fed_fsad.seeds import derive

SIGNS = Path("signs.yaml")


@dataclass(frozen=True)
class Order:
    """What to draw of one organ. normal, abnormal: images per split. size: pixels a side. style: its scanner.

    several: anomalies in one abnormal image.
    """

    task: str
    normal: int
    abnormal: int
    size: int
    style: int
    several: int
    seed: int


def write_phantoms(folder: Path, order: Order, progress: Callable[[int, int], None]) -> Path:
    """Draw a data set into a folder and return its manifest; the same order gives the same bytes.

    Raises ConfigError for an unknown organ or style, more anomalies at once than the organ has, or a folder that is
    not empty.
    """
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty; choose another --out or remove it")
    drawn = list(_drawn(order))
    entries = []
    for done, (split, name, sample) in enumerate(drawn, start=1):
        entries.append(_write(folder, split, name, sample, order.size))
        progress(done, len(drawn))
    signs = load_signs("phantoms")[order.task].model_dump(mode="json")
    text = yaml.safe_dump({order.task: signs}, sort_keys=False, allow_unicode=True)
    replace(folder / SIGNS, text.encode())
    write_manifest(folder / DEFAULT, entries, folder, "normal")
    return folder / DEFAULT


def _drawn(order: Order) -> Iterator[tuple[Split, str, Sample]]:
    if order.task not in ORGANS:
        raise ConfigError(f"phantom organ {order.task!r} does not exist; {suggestion(order.task, ORGANS)}")
    kinds = list(combinations(ORGANS[order.task].kinds, order.several))
    if not kinds:
        most = len(ORGANS[order.task].kinds)
        raise ConfigError(f"{order.task} has {most} anomalies and not {order.several} at once; lower --several")
    for split in SPLITS:
        shown: Sequence[tuple[str, ...]] = [()] * order.normal + [kinds[i % len(kinds)] for i in range(order.abnormal)]
        seed = derive(order.seed, "phantoms on disk", split)
        for number, own in enumerate(shown):
            yield split, f"{number:05}", phantom(order.task, own, order.style, seed, number)


def _write(folder: Path, split: Split, name: str, sample: Sample, size: int) -> Entry:
    image = folder / "images" / split / f"{name}.png"
    pixels = np.round(sample.source.image(size).transpose(1, 2, 0) * 255).astype(np.uint8)
    grey = (pixels == pixels[..., :1]).all()
    replace(image, _png(pixels[..., 0] if grey else pixels))
    mask = None
    marked = sample.source.mask(size)
    if marked is not None and not sample.is_normal:
        mask = folder / "masks" / split / f"{name}.png"
        replace(mask, _png(marked.astype(np.uint8) * 255))
    return Entry(image.relative_to(folder).as_posix(), image, split, tuple(sorted(sample.categories)), mask)


def _png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    file = BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
