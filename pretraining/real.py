"""Real images for the cards: folders `{train,test}/{class}/*`, read like a hospital's, never used for a choice."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fed_fsad.data.images import read_pixels, to_unit
from fed_fsad.seeds import numpy_stream
from pretraining.measure import DetectionSet

REAL_SETS = ("brain_mri", "retina", "chest_xray")
MOST = 80
"""Test images of each label; as many normal training images form the pool of supports."""


def real_detection_sets(root: Path, size: int, seed: int) -> dict[str, DetectionSet]:
    """Up to MOST normal training images, normal and abnormal test images per set, drawn from a stream of `seed`."""
    return {name: _real_set(root / name, size, seed) for name in REAL_SETS}


def _real_set(folder: Path, size: int, seed: int) -> DetectionSet:
    normal = sorted((folder / "test" / "normal").iterdir())
    abnormal = sorted(path for path in (folder / "test").glob("*/*") if path.parent.name != "normal")
    pool = sorted((folder / "train" / "normal").iterdir())
    parts = [
        _drawn(paths, size, numpy_stream(seed, "real", folder.name, part))
        for part, paths in (("normal", normal), ("abnormal", abnormal), ("pool", pool))
    ]
    labels = torch.cat([torch.full((len(part),), label) for label, part in enumerate(parts[:2])])
    return DetectionSet(parts[2], torch.cat(parts[:2]), labels)


def _drawn(paths: list[Path], size: int, rng: np.random.Generator) -> Tensor:
    chosen = [paths[i] for i in rng.permutation(len(paths))[:MOST]]
    return torch.from_numpy(np.stack([to_unit(read_pixels(path, path.name), size) for path in chosen]))
