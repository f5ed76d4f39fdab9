"""Distances to a few support images, differentiable and in episodes: what the teacher is trained for (ours).

The same distances as fed_fsad.methods.d24fad.baselines takes, before upsampling and smoothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def patch_distance(queries: Sequence[Tensor], supports: Sequence[Tensor]) -> Tensor:
    """1 - cosine of every patch to the nearest support patch, patches of all scales joined on the first one's grid.

    Per scale [E, Q, C, H, W] and [E, K, C, H, W]; gives [E, Q, H, W] of the first scale.
    """
    query, support = _joined(queries), _joined(supports)
    episodes, images, _, height, width = queries[0].shape
    nearest = (query.flatten(1, 2) @ support.flatten(1, 2).transpose(1, 2)).amax(-1)
    return (1 - nearest).view(episodes, images, height, width)


def position_distance(queries: Sequence[Tensor], supports: Sequence[Tensor], cells: int) -> Tensor:
    """1 - cosine to the nearest support at the same position, summed over scales: [E, Q, cells, cells]."""
    total = queries[0].new_zeros(())
    for query, support in zip(queries, supports, strict=True):
        similarity = F.cosine_similarity(query.unsqueeze(2), support.unsqueeze(1), dim=3)
        total = total + _resized(1 - similarity.amax(2), cells)
    return total


def _resized(maps: Tensor, cells: int) -> Tensor:
    """[..., H, W] averaged down or interpolated up to [..., cells, cells]."""
    flat = maps.flatten(0, -3).unsqueeze(1)
    if flat.shape[-1] > cells:
        flat = F.adaptive_avg_pool2d(flat, cells)
    elif flat.shape[-1] < cells:
        flat = F.interpolate(flat, (cells, cells), mode="bilinear", align_corners=False)
    return flat.view(*maps.shape[:-2], cells, cells)


def _joined(scales: Sequence[Tensor]) -> Tensor:
    """Unit patch vectors of all scales on the first one's grid: [E, N, H * W, sum of C]."""
    cells = scales[0].shape[-1]
    joined = torch.cat([_resized(scale, cells) for scale in scales], dim=2)
    return F.normalize(joined.flatten(3).transpose(2, 3), dim=-1)
