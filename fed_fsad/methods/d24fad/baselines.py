"""What the frozen teacher says without any training."""

import torch
import torch.nn.functional as F
from torch import Tensor

from fed_fsad.data.features import Features
from fed_fsad.methods.d24fad.scoring import combine, position_distance, score_images
from fed_fsad.methods.method import Scores


def nearest_patch(features: Features, support: Features, size: int) -> Scores:
    """Cosine distance of every patch to the nearest patch of any support, stages 2-3; score = maximum of the map.

    After PatchCore (Roth et al. 2022), without neighbourhood pooling and coreset. features: [B, ...] queries, support:
    [K, ...].
    """
    bank = _patches(support).flatten(0, 1)
    side = features["f2"].shape[-1]
    # One image at a time: the similarities of a whole batch with a large bank would not fit into memory.
    nearest = torch.stack([(patches @ bank.T).amax(dim=1) for patches in _patches(features)])
    return score_images(combine([1 - nearest.view(-1, side, side)], size), "max")


def nearest_position(features: Features, support: Features, size: int) -> Scores:
    """Cosine distance to the nearest support at the same position, stages 1-3 summed; score = maximum of the map."""
    distances = []
    for stage in ("f1", "f2", "f3"):
        per_support = [position_distance(features[stage], one[None]) for one in support[stage]]
        distances.append(torch.stack(per_support).amin(dim=0))
    return score_images(combine(distances, size), "max")


def pooled(features: Features) -> Tensor:
    """Stages 1-3 averaged over positions, joined and scaled to length 1: [N, C1 + C2 + C3]."""
    return F.normalize(torch.cat([features[stage].mean(dim=(2, 3)) for stage in ("f1", "f2", "f3")], dim=1))


def _patches(features: Features) -> Tensor:
    """[N, H2 W2, C2 + C3], of length 1: stage 3 brought to stage 2's grid."""
    f2 = features["f2"]
    f3 = F.interpolate(features["f3"], size=f2.shape[-2:], mode="bilinear", align_corners=False)
    return F.normalize(torch.cat([f2, f3], dim=1).flatten(2).transpose(1, 2), dim=2)
