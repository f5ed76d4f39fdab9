"""The two distillation losses, one value per query."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_distances(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Σ over scales of 1 - cos(flat left, flat right): per scale two [B, C, H, W], [B] out, in [0, 2 x scales].

    L_tsd when it compares teacher and student, L_ssd when it compares query and weighted support (D²4FAD).
    """
    pairs = zip(left, right, strict=True)
    return torch.stack([1 - F.cosine_similarity(a.flatten(1), b.flatten(1)) for a, b in pairs]).sum(dim=0)


def mean_pairwise_cosine(features: Sequence[Tensor]) -> float:
    """The mean over scales of the mean cosine of two different rows: 1 means that the features have collapsed.

    Raises ValueError with fewer than two rows.
    """
    rows = len(features[0])
    if rows < 2:
        raise ValueError("a pairwise cosine needs two rows")
    units = [F.normalize(feature.flatten(1)) for feature in features]
    return float(torch.stack([((u @ u.T).sum() - rows) / (rows * (rows - 1)) for u in units]).mean())
