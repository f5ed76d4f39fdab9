"""What labelled supports add to the signs: which of the anomalies they look like (ours)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fed_fsad.methods.sdmad import logistic

PRECISION = 0.2
"""Of the normal prior of the probe's weights; chosen on validation categories (docs/sdmad-choices.md)."""
BIAS_PRECISION = 1.0


@dataclass(frozen=True)
class Probe:
    """weights: [M, D], zero for a category that the supports cannot tell. centre: [D]. Both float64."""

    weights: Tensor
    centre: Tensor

    def add(self, scores: Tensor, embeddings: Tensor) -> Tensor:
        """s_m + σ(max_j s_j) w_m (v - centre), [B, M], from sign scores [B, M] and frozen embeddings [B, D].

        The gate: where the signs see nothing abnormal, which anomaly it would be does not matter.
        """
        told = ((embeddings.double() - self.centre) @ self.weights.T).to(scores.dtype)
        return scores + torch.sigmoid(scores.amax(dim=1, keepdim=True)) * told


def fit_probe(scores: Tensor, embeddings: Tensor, labels: Tensor) -> Probe:
    """One category against the other anomalies, on the abnormal supports, starting from what the signs said.

    scores: [K, M] of the signs. embeddings: [K, D]. labels: [K, M] bool, some of them True. w_m is the mode of a
    logistic regression of y_m with offset s_m and a normal prior, classes balanced; a category without positives or
    negatives keeps w_m = 0.
    """
    abnormal = labels.any(dim=1)
    shown, told, truth = (part[abnormal].double() for part in (embeddings, scores, labels))
    centre = shown.mean(dim=0)
    # The weights lie in the span of the supports, which has few dimensions.
    basis, _ = torch.linalg.qr((shown - centre).T)
    x = torch.cat([(shown - centre) @ basis, shown.new_ones(len(shown), 1)], dim=1)
    precision = x.new_full((x.shape[1],), PRECISION)
    precision[-1] = BIAS_PRECISION
    weights = x.new_zeros(truth.shape[1], len(centre))
    for m, target in enumerate(truth.T):
        positives = target.sum()
        if 0 < positives < len(x):
            balance = len(x) / 2 * torch.where(target > 0, 1 / positives, 1 / (len(x) - positives))
            found = logistic.fit(x, target, told[:, m], balance, torch.zeros_like(precision), precision)
            weights[m] = basis @ found[:-1]
    return Probe(weights, centre)
