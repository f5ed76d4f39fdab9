"""Hospital-level privacy, the arithmetic of it: how far one hospital moves a round's sum, and the noise on top.

A hospital's update is clipped to length C over everything it sends, summed, hidden in noise of standard deviation σC,
and divided by a cohort that is fixed beforehand. Removing a hospital moves the sum by at most C (McMahan et al. 2018).
Clipping that adapts to a quantile is Andrew et al. 2021. No amplification by sampling of sites is claimed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fed_fsad.privacy.noise import Noise

_SLACK = 1e-6
COUNT_SHARE = 0.1
"""Share of a round's μ² that adaptive clipping pays for its count of short updates (ours)."""
CLIP_RATE = 0.2
"""How fast the clip norm follows the quantile (Andrew et al. 2021, section 3)."""


def flat(tensors: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of all methods by "METHOD|PART/PARAMETER", sorted: what one hospital moves, as one update."""
    named = {f"{method}|{name}": tensor for method, own in tensors.items() for name, tensor in own.items()}
    return dict(sorted(named.items()))


def clip_update(update: Mapping[str, Tensor], clip_norm: float) -> tuple[dict[str, Tensor], float]:
    """The update shortened to at most `clip_norm` over all its tensors jointly, and its length before, in float64.

    Scalars (0-d) count like all others. A zero update stays zero. One that holds NaN or infinity counts as zero, its
    length as infinite. Shapes and dtypes are kept; raises ValueError for tensors that are not of floats.
    """
    for name, tensor in update.items():
        if not tensor.is_floating_point():
            raise ValueError(f"{name} is {tensor.dtype}: only float tensors are updates")
    norm = math.sqrt(sum(float(tensor.double().square().sum()) for tensor in update.values()))
    if not math.isfinite(norm):
        return {name: torch.zeros_like(tensor) for name, tensor in update.items()}, math.inf
    if norm <= clip_norm:
        return {name: tensor.detach().clone() for name, tensor in update.items()}, norm
    # A little less than C: rounding to float32 must not make it longer again.
    factor = clip_norm / norm * (1 - _SLACK)
    return {name: (tensor.detach().double() * factor).to(tensor.dtype) for name, tensor in update.items()}, norm


def noisy_mean(
    total: Mapping[str, Tensor], *, clip_norm: float, noise_multiplier: float, cohort: int, noise: Noise
) -> dict[str, Tensor]:
    """(total + σC·N(0, I)) / cohort, in the tensors' shapes and dtypes; float64 until the last step.

    total: the sum of clipped updates. cohort: fixed beforehand; dividing by the replies that came would tell of one.
    """
    scale = noise_multiplier * clip_norm
    return {
        name: ((tensor.double().cpu() + scale * noise.normal(tensor.shape)) / cohort).to(tensor.dtype)
        for name, tensor in total.items()
    }


@dataclass(frozen=True)
class NoiseShares:
    """How a round's noise multiplier z is split: `update` for the sum of updates, `count` the standard deviation of the
    count of short updates (0 = none is taken), so that 1/z² = 1/update² + 1/(2·count)².
    """

    update: float
    count: float


def noise_shares(noise_multiplier: float, adaptive: bool) -> NoiseShares:
    """The shares that together cost what one release with `noise_multiplier` costs.

    A hospital moves the count, of ±1/2 each, by 1/2 (Andrew et al. 2021, Theorem 1).
    """
    if not adaptive:
        return NoiseShares(noise_multiplier, 0.0)
    return NoiseShares(noise_multiplier / math.sqrt(1 - COUNT_SHARE), noise_multiplier / (2 * math.sqrt(COUNT_SHARE)))


def noisy_share(
    norms: Mapping[str, float], *, clip_norm: float, count_noise: float, cohort: int, noise: Noise
) -> float:
    """The share of updates no longer than `clip_norm`, hidden in noise; a site that sent none counts as a half.

    norms: length of each update before clipping, by site.
    """
    count = sum(0.5 if norm <= clip_norm else -0.5 for norm in norms.values())
    return (count + count_noise * float(noise.normal([]))) / cohort + 0.5


def next_clip_norm(clip_norm: float, share: float, target: float) -> float:
    """C·exp(-η·(share - target)): shorter when more than `target` of the updates are short already.

    The share is cut to [0, 1] first, which costs nothing: no round of noise moves C by more than η.
    """
    return clip_norm * math.exp(-CLIP_RATE * (min(max(share, 0.0), 1.0) - target))
