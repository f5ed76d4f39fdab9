"""What the frozen teacher says without any training."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fed_fsad.data.features import Features
from fed_fsad.methods.d24fad.residuals import RESIDUALS, one_by_one
from fed_fsad.methods.d24fad.scoring import ImageScore, combine, score_images
from fed_fsad.methods.method import Scores


def nearest_patch(features: Features, support: Features, size: int) -> Scores:
    """Cosine distance of every patch to the nearest patch of any support, stages 2-3; score = maximum of the map.

    features: [B, ...] queries, support: [K, ...].
    """
    return residual_scores(["patches"], features, support, size, "max")


def nearest_position(features: Features, support: Features, size: int) -> Scores:
    """Cosine distance to the nearest support at the same position, stages 1-3 summed; score = maximum of the map."""
    return residual_scores(["positions"], features, support, size, "max")


def pooled(features: Features) -> Tensor:
    """Stages 1-3 averaged over positions, joined and scaled to length 1: [N, C1 + C2 + C3]."""
    return F.normalize(torch.cat([features[stage].mean(dim=(2, 3)) for stage in ("f1", "f2", "f3")], dim=1))


def residual_scores(
    names: Sequence[str], features: Features, support: Features, size: int, image_score: ImageScore
) -> Scores:
    """Scores of the sum of the teacher's residuals of these names; features: [B, ...] queries, support: [K, ...]."""
    maps = [
        combine([distance for name in names for distance in RESIDUALS[name](image, support)], size)
        for image in one_by_one(features)
    ]
    return score_images(torch.cat(maps), image_score)
