"""Scores as probabilities, and thresholds, from the supports alone (ours)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fed_fsad.methods.sdmad import logistic

PRIOR = (1.0, 0.0)
"""Slope and shift before any support: training aims at σ(s_m) itself."""
SLOPE_PRECISION, SHIFT_PRECISION = 4.0, 4.0
"""Of the normal prior around what all categories share; chosen on validation categories (docs/sdmad-choices.md)."""
LEAST_SLOPE = 0.05


@dataclass(frozen=True)
class Calibration:
    """p_m = σ(slope_m s_m + shift_m); both [M], slope > 0."""

    slope: Tensor
    shift: Tensor

    def probabilities(self, scores: Tensor) -> Tensor:
        """[B, M] from scores [B, M]."""
        return torch.sigmoid(self.slope * scores + self.shift)

    @property
    def thresholds(self) -> Tensor:
        """The scores [M] above which a category is more likely present than not."""
        return -self.shift / self.slope


def fit_calibration(scores: Tensor, labels: Tensor) -> Calibration:
    """Platt scaling with a prior (after Platt 1999; the hierarchy is ours), from leave-one-out `scores` [K, M].

    First one slope and shift for all categories together, with the prior (1, 0); then each category's own, with a
    normal prior around the shared ones. A category without supports keeps the shared ones, and without any support the
    probability is σ(s_m). It holds where categories are as common as among the supports. labels: [K, M] bool.
    """
    truth, told = labels.double(), scores.double()
    start = torch.tensor(PRIOR, dtype=torch.float64)
    shared = _fit(told.flatten(), truth.flatten(), start) if labels.any() else start
    own = [_fit(s, y, shared) if y.any() else shared for s, y in zip(told.T, truth.T, strict=True)]
    slope, shift = torch.stack(own).T.to(scores.dtype)
    return Calibration(slope.clamp(min=LEAST_SLOPE), shift)


def _fit(scores: Tensor, target: Tensor, mean: Tensor) -> Tensor:
    x = torch.stack([scores, torch.ones_like(scores)], dim=1)
    precision = torch.tensor([SLOPE_PRECISION, SHIFT_PRECISION], dtype=torch.float64)
    return logistic.fit(x, target, torch.zeros_like(scores), torch.ones_like(scores), mean, precision)
