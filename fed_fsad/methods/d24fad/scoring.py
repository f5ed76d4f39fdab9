"""Anomaly maps: distances per position, brought to the input's resolution, summed over scales, smoothed per image."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fed_fsad.methods.method import Scores

SIGMA_PER_PIXEL = 4 / 128
"""The public code blurs 128 px maps with sigma 4; other sizes get the same share of the image (ours)."""
TRUNCATE = 4.0
ImageScore = Literal["max", "mean", "topk"]
TOP_SHARE = 0.01


def position_distance(left: Tensor, right: Tensor) -> Tensor:
    """1 - cos over channels: two [B, C, H, W] to [B, H, W]."""
    return 1 - F.cosine_similarity(left, right, dim=1)


def combine(distances: Sequence[Tensor], size: int) -> Tensor:
    """Per scale [B, H_i, W_i]: the sum of their bilinear upsamplings (corners aligned), smoothed, [B, size, size]."""
    upsampled = [
        F.interpolate(d[:, None], size=(size, size), mode="bilinear", align_corners=True)[:, 0] for d in distances
    ]
    return smooth(torch.stack(upsampled).sum(dim=0), SIGMA_PER_PIXEL * size)


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of every [S, S] map of [B, S, S] by itself; edges mirror, as in scipy's mode "reflect"."""
    blur = _blur_matrix(maps.shape[-1], sigma).to(maps)
    return blur @ maps @ blur.T


def score_images(maps: Tensor, image_score: ImageScore) -> Scores:
    """Scores of [B, S, S] maps; an image's score is the map's maximum, its mean, or the mean of its highest 1 %."""
    flat = maps.flatten(1)
    if image_score == "topk":
        return Scores(flat.topk(math.ceil(TOP_SHARE * flat.shape[1]), dim=1).values.mean(dim=1), maps)
    return Scores(flat.amax(dim=1) if image_score == "max" else flat.mean(dim=1), maps)


def _blur_matrix(size: int, sigma: float) -> Tensor:
    """[size, size]: row i holds the truncated Gaussian around pixel i, what leaves an edge folded back inside."""
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets.double() / sigma) ** 2)
    target = (torch.arange(size)[:, None] + offsets) % (2 * size)
    target = torch.where(target < size, target, 2 * size - 1 - target)
    return torch.zeros(size, size, dtype=torch.float64).scatter_add(1, target, (kernel / kernel.sum()).expand(size, -1))
