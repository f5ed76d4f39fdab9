"""What counted guesses prove about ε, and what ε allows an attack to reach at most."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from fed_fsad.privacy.audit.mechanism import error_rate_above
from fed_fsad.seeds import numpy_stream

CONFIDENCE = 0.95
RESAMPLES = 1000
Trial = tuple[NDArray[np.bool_], NDArray[np.float64]]
_STEPS = 30


def one_run_epsilon(records: int, guesses: int, right: int, delta: float, confidence: float = CONFIDENCE) -> float:
    """The largest ε that one run refutes: of `records` coin-tossed records `guesses` were guessed, `right` rightly.

    Steinke, Nasr & Jagielski 2023, Theorem 5.2; 0 when nothing is refuted.
    """
    low, high = 0.0, 1.0
    if one_run_p_value(records, guesses, right, low, delta) > 1 - confidence:
        return 0.0
    while one_run_p_value(records, guesses, right, high, delta) <= 1 - confidence:
        low, high = high, 2 * high
    for _ in range(_STEPS):
        middle = (low + high) / 2
        refuted = one_run_p_value(records, guesses, right, middle, delta) <= 1 - confidence
        low, high = (middle, high) if refuted else (low, middle)
    return low


def one_run_p_value(records: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """How likely so many right guesses are at most when training is (ε, δ)-private."""
    chance = 1 / (1 + math.exp(-epsilon))
    tail = float(binom.sf(right - 1, guesses, chance))
    # How much likelier `right - i` and more are than `right` and more: δ may be spent where that costs least.
    short = np.arange(1, right + 1)
    gained = np.cumsum(binom.pmf(right - short, guesses, chance))
    worst = float((gained / short).max()) if right else 0.0
    return min(1.0, tail + 2 * records * delta * worst)


def best_one_run(
    included: NDArray[np.bool_], evidences: Sequence[NDArray[np.float64]], delta: float
) -> tuple[float, int, int]:
    """The best lower bound on ε over some numbers of guesses, with those guesses and how many were right.

    included: [m], what the coins said. evidences: each [m], higher where a record seems to be in. The k records of most
    and the k of least evidence are guessed. Whatever is tried pays for having been tried (Bonferroni).
    """
    counts = sorted({max(1, len(included) // part) for part in (2, 4, 8, 16)})
    confidence = 1 - (1 - CONFIDENCE) / (len(counts) * len(evidences))
    found = []
    for order in (np.argsort(evidence, kind="stable") for evidence in evidences):
        for k in counts:
            right = int((~included[order[:k]]).sum() + included[order[-k:]].sum())
            found.append((one_run_epsilon(len(order), 2 * k, right, delta, confidence), 2 * k, right))
    return max(found)


def auc_limit(mu: float) -> float:
    """The largest AUC with which anybody tells releases with a record from those without it, under μ-Gaussian privacy.

    The area under the trade-off curve Φ(Φ⁻¹(1 - α) - μ) of Dong, Roth & Su 2022.
    """
    return float(norm.cdf(mu / math.sqrt(2)))


def success_limit(mu: float, without: float) -> float:
    """How often an attack succeeds at most with the record that succeeds with probability `without` where it is not."""
    return float(norm.cdf(norm.ppf(without) + mu)) if 0 < without < 1 else without


def rate_between(hits: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The interval of a success rate (Clopper & Pearson 1934, two-sided)."""
    each = 1 - (1 - confidence) / 2
    return 1 - error_rate_above(trials - hits, trials, each), error_rate_above(hits, trials, each)


def auc_between(trials: Sequence[Trial], seed: int) -> tuple[float, float, float]:
    """AUC over all trials, and its 95 % interval when whole trials are resampled (their records hang together).

    A trial: who was in, [m] bool, and the evidence for it, [m]. AUC: how often a record that was in, in any trial, has
    more evidence than one that was not; ties count half. NaN without both.
    """
    wins = np.array([[_wins(inside[own], outside[~other]) for other, outside in trials] for own, inside in trials])
    pairs = np.outer([own.sum() for own, _ in trials], [(~other).sum() for other, _ in trials])
    every = np.ones((1, len(trials)))
    drawn = numpy_stream(seed, "auc resamples").multinomial(len(trials), every[0] / len(trials), RESAMPLES)
    with np.errstate(invalid="ignore"):
        whole, resampled = (((c @ wins) * c).sum(1) / ((c @ pairs) * c).sum(1) for c in (every, drawn))
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return float(whole[0]), float(low), float(high)


def _wins(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
    return float((inside[:, None] > outside).sum() + 0.5 * (inside[:, None] == outside).sum())
