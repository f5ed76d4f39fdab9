"""Figures recomputed the slow way, from their definitions: no sorting tricks, no library."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def slow_auroc(labels: Sequence[int], scores: Sequence[float]) -> float:
    """The share of (abnormal, normal) pairs in the right order; a tie is half a pair."""
    positives = [score for label, score in zip(labels, scores, strict=True) if label]
    negatives = [score for label, score in zip(labels, scores, strict=True) if not label]
    wins = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in positives for b in negatives)
    return wins / (len(positives) * len(negatives))


def regions(mask: NDArray[np.bool_]) -> list[set[tuple[int, int]]]:
    """The 8-connected regions of one mask [H, W], by flood fill."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = []
    while left:
        region, front = set(), [left.pop()]
        while front:
            y, x = front.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            front += near
        found.append(region)
    return found


def slow_aupro(masks: NDArray[np.bool_], maps: NDArray[np.float32], limit: float) -> float:
    """One pass over the images per threshold, then 20 000 slices of the curve up to `limit`."""
    curve = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        flagged = maps >= threshold
        overlaps = [
            sum(bool(flagged[i][pixel]) for pixel in region) / len(region)
            for i, mask in enumerate(masks)
            for region in regions(mask)
        ]
        curve.append((float((flagged & ~masks).sum() / (~masks).sum()), float(np.mean(overlaps))))
    rates, slices = np.array(curve), 20_000
    middles = (np.arange(slices) + 0.5) * limit / slices
    heights = []
    for x in middles:
        after = int(np.argmax(rates[:, 0] > x))
        (x0, y0), (x1, y1) = rates[after - 1], rates[after]
        heights.append(y0 + (y1 - y0) * (x - x0) / (x1 - x0))
    return float(np.mean(heights))


def slow_sensitivity(labels: Sequence[int], scores: Sequence[float], specificity: float) -> float:
    """The best share of abnormal images above any threshold that at least `specificity` of the normal ones pass."""
    positives = [score for label, score in zip(labels, scores, strict=True) if label]
    negatives = [score for label, score in zip(labels, scores, strict=True) if not label]
    return max(
        sum(score > threshold for score in positives) / len(positives)
        for threshold in scores
        if sum(score <= threshold for score in negatives) >= specificity * len(negatives)
    )


def slow_dice(masks: NDArray[np.bool_], maps: NDArray[np.float32]) -> float:
    """One overlap per threshold."""
    thresholds = sorted(set(maps.ravel().tolist()))
    return max(float(2 * (masks & (maps >= t)).sum() / (masks.sum() + (maps >= t).sum())) for t in thresholds)
