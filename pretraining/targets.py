"""What the teacher is distilled from: a large network's stages on a fixed set of images, in few channels (ours)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from safetensors.torch import load, save
from torch import Tensor
from torch.nn import functional as F

from fed_fsad.durable import replace
from fed_fsad.methods.d24fad.teacher import Teacher
from fed_fsad.seeds import numpy_stream
from pretraining.device import half_products
from pretraining.families import Pixels, sample_family
from pretraining.photographs import crop
from pretraining.scenes import draw

CHANNELS = (64, 128, 192, 128)
"""Channels that are kept of each stage: the strongest directions of the first chunk's features."""
CHUNK = 250
"""Images per file."""
ENLARGED = 2
"""The large network sees the images twice as wide: its patches then match the small network's in the image."""
PHOTOGRAPHS = 0.5
"""Share of the images that are crops of photographs; the others are formula-made scenes."""


@dataclass(frozen=True)
class Targets:
    """images: [N, 3, S, S] bytes. stages: four of [N, C, S/2^(i+1), S/2^(i+1)] in half precision."""

    images: Tensor
    stages: tuple[Tensor, ...]


def make_targets(reference: Teacher, device: torch.device, seed: int, count: int, size: int, work: Path) -> Targets:
    """`count` images and the reference's stages; chunks that already lie in `work` are read, not made again."""
    work.mkdir(parents=True, exist_ok=True)
    bases: list[Tensor] = []
    chunks = []
    for start in track(range(0, count, CHUNK), description="targets"):
        path = work / f"{start:07d}.safetensors"
        if not path.exists():
            images = torch.from_numpy(np.stack([_image(seed, i, size) for i in range(start, start + CHUNK)]))
            stages = [seen(reference, device, batch) for batch in torch.split(images, 25)]
            joined = [torch.cat(parts) for parts in zip(*stages, strict=True)]
            bases = bases or _bases(work, joined)
            few = [torch.einsum("nchw,ck->nkhw", f, b).half().contiguous() for f, b in zip(joined, bases, strict=True)]
            replace(path, save({"images": images, **{f"f{i}": stage for i, stage in enumerate(few)}}))
        chunks.append(load(path.read_bytes()))
    whole = {name: torch.cat([chunk.pop(name) for chunk in chunks]) for name in list(chunks[0])}
    return Targets(whole.pop("images"), tuple(whole[f"f{i}"] for i in range(4)))


def seen(reference: Teacher, device: torch.device, images: Tensor) -> list[Tensor]:
    """The reference's stages of byte images, averaged to the grids of a network that sees the images as they are."""
    pixels = images.to(device).float() / 255
    large = F.interpolate(pixels, scale_factor=ENLARGED, mode="bilinear", align_corners=False)
    with half_products(device):
        stages = reference.stages(large.contiguous(memory_format=torch.channels_last))
    return [F.avg_pool2d(stage.float(), ENLARGED).cpu() for stage in stages]


def _bases(work: Path, stages: Sequence[Tensor]) -> list[Tensor]:
    """Per stage [C, kept]: the strongest directions of its features about zero, so that inner products are kept."""
    path = work / "bases.safetensors"
    if not path.exists():
        found = {}
        for i, (stage, kept) in enumerate(zip(stages, CHANNELS, strict=True)):
            vectors = F.normalize(stage.transpose(0, 1).flatten(1).double(), dim=0)
            found[f"b{i}"] = torch.linalg.eigh(vectors @ vectors.T)[1][:, -kept:].float().contiguous()
        replace(path, save(found))
    content = load(path.read_bytes())
    return [content[f"b{i}"] for i in range(len(CHANNELS))]


def _image(seed: int, index: int, size: int) -> NDArray[np.uint8]:
    """The image of that number, [3, S, S] bytes: a crop of a photograph, or a formula-made scene."""
    rng = numpy_stream(seed, "distillation", index)
    draw_one = partial(crop, rng, size) if rng.random() < PHOTOGRAPHS else partial(_scene, rng, size)
    return np.round(draw_one() * 255).astype(np.uint8)


def _scene(rng: np.random.Generator, size: int) -> Pixels:
    return draw(sample_family(rng), rng, size, alter=bool(rng.random() < 0.5)).pixels
