"""Logistic regression on a handful of images: the mode of the posterior under a normal prior, by Newton's method."""

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 50
HALVINGS = 30


def fit(x: Tensor, target: Tensor, offset: Tensor, weights: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """The θ [d] that minimises Σ_i weights_i BCE(σ(offset_i + x_i θ), target_i) + ½ Σ_j precision_j (θ_j - mean_j)².

    x: [N, d]. target, offset, weights: [N]. mean, precision: [d], precision > 0, so that there is one minimum, also for
    classes that a plane separates and for no image at all. float64 throughout.
    """
    theta = mean.clone()
    for _ in range(STEPS):
        p = torch.sigmoid(offset + x @ theta)
        slope = x.T @ (weights * (p - target)) + precision * (theta - mean)
        bend = (x.T * (weights * p * (1 - p))) @ x + torch.diag(precision)
        step = torch.linalg.solve(bend, slope)
        if step.abs().max() < 1e-9:
            break
        before = _loss(theta, x, target, offset, weights, mean, precision)
        size = 1.0
        for _ in range(HALVINGS):
            if _loss(theta - size * step, x, target, offset, weights, mean, precision) <= before:
                break
            size /= 2
        theta = theta - size * step
    return theta


def _loss(
    theta: Tensor, x: Tensor, target: Tensor, offset: Tensor, weights: Tensor, mean: Tensor, precision: Tensor
) -> Tensor:
    errors = F.binary_cross_entropy_with_logits(offset + x @ theta, target, reduction="none")
    return weights @ errors + 0.5 * precision @ (theta - mean) ** 2
