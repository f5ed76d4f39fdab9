"""SD-MAD's losses, reliability and scores written as plain loops from the formulas of the specification."""

import math
from collections.abc import Sequence


def stage_one(g: Sequence[float], present: Sequence[bool], inter_weight: float) -> float:
    """The loss of one image; g[0] is normal, g[m] category m, present[m - 1] its label."""
    align = 0.0
    for m in range(1, len(g)):
        probability = 1 / (1 + math.exp(-(g[m] - g[0])))
        align -= math.log(probability if present[m - 1] else 1 - probability)
    align /= len(g) - 1
    positives = [m for m in range(1, len(g)) if present[m - 1]] or [0]
    negatives = [j for j in range(len(g)) if j not in positives]
    inter = sum(math.log(1 + sum(math.exp(g[j] - g[m]) for j in negatives)) for m in positives) / len(positives)
    return align + inter_weight * inter


def auroc(inside: Sequence[float], outside: Sequence[float]) -> float:
    """The chance that a positive scores above a negative, ties counting half."""
    wins = sum((a > b) + 0.5 * (a == b) for a in inside for b in outside)
    return wins / (len(inside) * len(outside))


def kept(reliabilities: Sequence[float], share: float) -> list[int]:
    """Indices of the ceil(share * K) most reliable signs, the lower index first among equals."""
    count = math.ceil(share * len(reliabilities))
    return sorted(sorted(range(len(reliabilities)), key=lambda k: (-reliabilities[k], k))[:count])


def sample_score(own: Sequence[float], normal: Sequence[float]) -> float:
    """s_m of one image from the logits of its kept signs and of the kept normal signs."""
    count = math.ceil(len(own) / 2)
    top, base = sorted(own, reverse=True)[:count], sorted(normal, reverse=True)[:count]
    return sum(top) / len(top) - sum(base) / len(base)
