"""A threshold and a warning from K support images alone: both read the supports' leave-one-out scores."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from fed_fsad.errors import DataError
from fed_fsad.methods.method import Method, SupportBank

Values = NDArray[np.float64]
FALSE_WARNING = 0.05
"""How often a clean support set of normally distributed scores gives a warning, at most."""


@dataclass(frozen=True)
class Threshold:
    """An image whose score lies above `value` is called abnormal.

    specificity: the share of further normal images asked to stay at or below. supports: how many scores it rests on.
    rule: conformal (holds whatever the scores' distribution) or t_bound (holds for normally distributed scores).
    """

    value: float
    specificity: float
    supports: int
    rule: Literal["conformal", "t_bound"]


def threshold(scores: Tensor, specificity: float) -> Threshold:
    """The threshold that leave-one-out `scores` [K] of normal images give for a specificity in (0, 1).

    conformal when K suffices, that is K >= s / (1 - s), else the prediction bound of one further draw from a normal
    distribution, mean + t_{K-1, s} sd √(1 + 1/K). Raises DataError with fewer than two scores.
    """
    values = _values(scores)
    if len(values) < 2:
        raise DataError("a threshold needs at least 2 normal support images; add support images")
    value, share = conformal(values.tolist(), specificity)
    if share >= specificity:
        return Threshold(value, specificity, len(values), "conformal")
    return Threshold(_t_bound(values, specificity), specificity, len(values), "t_bound")


def conformal(scores: Sequence[float], share: float) -> tuple[float, float]:
    """The k-th lowest of n scores, k = ceil(share (n + 1)), and k / (n + 1); the highest where n is too small for that.

    A new image of the same kind stays at or below with probability k / (n + 1) or more, whatever the scores'
    distribution (split conformal, Vovk et al. 2005).
    """
    n = len(scores)
    # The tolerance keeps 0.9 * 10 from counting as a little more than 9.
    place = min(n, math.ceil(share * (n + 1) - 1e-9))
    return float(sorted(scores)[place - 1]), place / (n + 1)


def misfits(scores: Tensor) -> tuple[int, ...]:
    """Which of K leave-one-out `scores` [K] lie above the prediction bound of the others; none with fewer than three.

    The bound is at 1 - 0.05 / K, so a clean set of normally distributed scores has a misfit one time in twenty at most.
    """
    values = _values(scores)
    if len(values) < 3:
        return ()
    bounds = [_t_bound(np.delete(values, i), 1 - FALSE_WARNING / len(values)) for i in range(len(values))]
    return tuple(i for i, bound in enumerate(bounds) if values[i] > bound)


def warnings(method: Method, bank: SupportBank, names: Sequence[str]) -> tuple[str, ...]:
    """One sentence per normal support that does not belong to the others; `names` are the normal supports' files."""
    scores = method.support_scores(bank)
    if scores is None:
        return ()
    return tuple(
        f"support {names[i]} is unlike the other {len(names) - 1}: it scores {float(scores[i]):.3g} against them; "
        "look at it, and take it out if it is abnormal or of another kind"
        for i in misfits(scores)
    )


def _t_bound(values: Values, share: float) -> float:
    """What one more draw from the values' normal distribution stays at or below with probability `share`."""
    n = len(values)
    spread = float(np.std(values, ddof=1)) * math.sqrt(1 + 1 / n)
    return float(np.mean(values) + stats.t.ppf(share, n - 1) * spread)


def _values(scores: Tensor) -> Values:
    values: Values = scores.detach().double().cpu().numpy()
    return values
