"""Image-level and pixel-level figures; NaN wherever a figure is not defined."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fed_fsad import seeds

Counts = NDArray[np.int64]
Block = tuple[NDArray[np.int8], NDArray[np.float64]]
"""Comparisons made on one set of N images: labels [C, N] of 1, 0 or -1 (left out), scores [D, C, N] over D draws."""


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve of [N] scores; NaN when only one class is present or a score is NaN."""
    truth, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    return _area(truth, values) if _comparable(truth, values) else math.nan


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Average precision of [N] scores; NaN when only one class is present or a score is NaN."""
    truth, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    if not _comparable(truth, values):
        return math.nan
    hits, called = _ranked(truth, values)
    return float(np.diff(hits, prepend=0) @ (hits / called) / hits[-1])


def sensitivity_at(labels: ArrayLike, scores: ArrayLike, specificity: float = 0.95) -> float:
    """The largest share of abnormal images above a threshold that `specificity` of the normal ones stay at or below.

    The threshold is one of the scores, and equal scores fall on one side; NaN as `auroc`.
    """
    truth, values = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=np.float64)
    if not _comparable(truth, values):
        return math.nan
    normal = np.sort(values[~truth])
    # Rounded first: 0.95 * 20 is a little more than 19 in floating point.
    passed = math.ceil(round(specificity * normal.size, 9))
    return float((values[truth] > normal[passed - 1]).mean())


def best_dice(masks: NDArray[np.bool_], maps: NDArray[np.float32]) -> float:
    """The largest Dice coefficient of all pixels of all images together that one threshold reaches (an upper bound).

    masks, maps: [N, H, W]; NaN with one kind of pixels only.
    """
    if not masks.any() or masks.all():
        return math.nan
    hits, called = _ranked(masks.ravel(), maps.ravel())
    return float((2 * hits / (called + hits[-1])).max())


def pixel_auroc(masks: NDArray[np.bool_], maps: NDArray[np.float32]) -> float:
    """AUROC over all pixels of all images together; masks and maps are [N, H, W]; NaN with one kind of pixels only.

    The same figure as `auroc`, without a copy of millions of pixels.
    """
    return _area(masks.ravel(), maps.ravel()) if masks.any() and not masks.all() else math.nan


def f1(labels: ArrayLike, predicted: ArrayLike) -> float:
    """F1 of [N] yes/no predictions; NaN when nothing is positive, 0 when no positive is found."""
    truth, called = np.asarray(labels, dtype=bool), np.asarray(predicted, dtype=bool)
    return float(2 * (truth & called).sum() / (truth.sum() + called.sum())) if truth.any() else math.nan


def macro(values: Sequence[float]) -> tuple[float, int]:
    """The mean of the values that are defined, and how many were left out; (NaN, ...) when none is defined."""
    defined = [value for value in values if not math.isnan(value)]
    return (float(np.mean(defined)) if defined else math.nan), len(values) - len(defined)


def spread(draws: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation over support draws; a single draw has no deviation: NaN."""
    mean, _ = macro(draws)
    return mean, float(np.std(draws, ddof=1)) if len(draws) > 1 else math.nan


def bootstrap_interval(labels: ArrayLike, scores: ArrayLike, seed: int, n: int = 1000) -> tuple[float, float] | None:
    """95 % percentile interval of the AUROC of [N] scores: images are resampled, positives and negatives apart."""
    block = np.asarray(labels, dtype=np.int8)[None], np.asarray(scores, np.float64)[None, None]
    return percentiles(bootstrap_macro([block], seed, n))


def percentiles(resamples: Sequence[float] | NDArray[np.float64] | None) -> tuple[float, float] | None:
    """The 95 % percentile interval of resampled figures [n]; None without them."""
    if resamples is None:
        return None
    low, high = np.percentile(resamples, [2.5, 97.5])
    return float(low), float(high)


def bootstrap_macro(blocks: Sequence[Block], seed: int, n: int = 1000) -> tuple[float, ...] | None:
    """The AUROC averaged over all comparisons and draws, on n resamples [n] (Efron 1979; strata are ours).

    Within a block the same images are resampled for every comparison and draw, among those of equal labels, so no
    comparison ever loses a class; and for every detector that is measured on them, so figures of the same place can be
    subtracted (a paired bootstrap). None when no comparison has both classes.
    """
    stream = seeds.numpy_stream(seed, "bootstrap")
    total, compared = np.zeros(n), 0
    for labels, scores in blocks:
        counts = _resampled(labels, stream, n)
        for row, values in zip(labels, scores.swapaxes(0, 1), strict=True):
            positive, negative = row == 1, row == 0
            if not (positive.any() and negative.any()) or np.isnan(values).any():
                continue
            wins = np.mean([_wins(draw[positive], draw[negative]) for draw in values], axis=0)
            total += ((counts[:, positive] @ wins) * counts[:, negative]).sum(axis=1) / wins.size
            compared += 1
    return tuple((total / compared).tolist()) if compared else None


def _area(truth: NDArray[np.bool_], values: NDArray[np.floating[Any]]) -> float:
    """AUROC of [N] values, both classes among them: every abnormal one beats the normal ones below it, and half of
    those that tie with it.
    """
    hits, called = _ranked(truth, values)
    above = np.append(0, called - hits)
    beaten = above[-1] - (above[:-1] + above[1:]) / 2
    return float(np.diff(hits, prepend=0) @ beaten / (hits[-1] * above[-1]))


def _ranked(truth: NDArray[np.bool_], values: NDArray[np.floating[Any]]) -> tuple[Counts, Counts]:
    """How many positives, and how many in all, reach each different value, the highest value first.

    scikit-learn's figures check their input for a hundred times as long as this takes on the images of a task.
    """
    order = np.argsort(-values)
    ordered = values[order]
    last_of_ties = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), values.size - 1)
    return np.cumsum(truth[order])[last_of_ties], last_of_ties + 1


def _comparable(truth: NDArray[np.bool_], values: NDArray[np.float64]) -> bool:
    return bool(truth.any() and not truth.all() and not np.isnan(values).any())


def _wins(positive: NDArray[np.float64], negative: NDArray[np.float64]) -> NDArray[np.float64]:
    """[P, Q]: 1 where the positive scores above the negative, 1/2 where they tie; its mean is the AUROC."""
    left, right = positive[:, None], negative[None, :]
    return np.where(left == right, 0.5, left > right)


def _resampled(labels: NDArray[np.int8], stream: np.random.Generator, n: int) -> NDArray[np.float64]:
    """[n, N]: how often each resample holds each image; images of equal label columns form a stratum.

    Strata come in the order of their first images: a comparison that splits none of them changes no count.
    """
    _, first, stratum = np.unique(labels, axis=1, return_index=True, return_inverse=True)
    counts = np.empty((n, labels.shape[1]))
    for number in np.argsort(first):
        members = np.flatnonzero(stratum.ravel() == number)
        counts[:, members] = stream.multinomial(len(members), np.full(len(members), 1 / len(members)), size=n)
    return counts
