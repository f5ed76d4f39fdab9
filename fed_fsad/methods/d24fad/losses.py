"""The two distillation losses, one value per query."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fed_fsad.methods.d24fad.scoring import position_distance

COLLAPSED = 0.98
"""Mean cosine of two images' student features above which they have run together."""


def cosine_distances(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Σ over scales of 1 - cos(flat left, flat right): per scale two [B, C, H, W], [B] out, in [0, 2 x scales].

    L_tsd when it compares teacher and student, L_ssd when it compares query and weighted support (D²4FAD).
    """
    pairs = zip(left, right, strict=True)
    return torch.stack([1 - F.cosine_similarity(a.flatten(1), b.flatten(1)) for a, b in pairs]).sum(dim=0)


def position_distances(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Σ over scales of the mean over positions of 1 - cos over channels: per scale two [B, C, H, W], [B] out."""
    pairs = zip(left, right, strict=True)
    return torch.stack([position_distance(a, b).mean(dim=(1, 2)) for a, b in pairs]).sum(dim=0)


def weighted_distances(query: Tensor, values: Tensor, weights: Tensor) -> Tensor:
    """One scale: Σ_k w_k (1 - cos(flat query, flat value_k)), [B].

    query [B, C, H, W], values [B, K, C, H, W], weights [B, K].
    The paper's form by secondary notes: learn-to-weight weighs distances, not features.
    """
    distances = 1 - F.cosine_similarity(query.flatten(1)[:, None], values.flatten(2), dim=2)
    return (weights * distances).sum(dim=1)


def concern(figures: Mapping[str, float]) -> str | None:
    """A warning when a training's diagnostics tell collapse."""
    if figures.get("student_cosine", 0.0) <= COLLAPSED:
        return None
    return (
        f"the student sees different images alike (mean cosine above {COLLAPSED}), so its own residuals say little; "
        "raise methods.d24fad.tsd_weight"
    )


def mean_pairwise_cosine(features: Sequence[Tensor]) -> float:
    """The mean over scales of the mean cosine of two different rows: 1 means that the features have collapsed.

    Raises ValueError with fewer than two rows.
    """
    rows = len(features[0])
    if rows < 2:
        raise ValueError("a pairwise cosine needs two rows")
    units = [F.normalize(feature.flatten(1)) for feature in features]
    return float(torch.stack([((u @ u.T).sum() - rows) / (rows * (rows - 1)) for u in units]).mean())
