"""Figures of a study over its seeds, and differences between them, paired over seeds, support draws and test images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from fed_fsad.evaluation.report.results import Gain
from simulations.batch.draws import over_seeds
from simulations.study.collect import Figure

Interval = tuple[float, float] | None
BySeed = Mapping[int, Figure]


@dataclass(frozen=True, order=True)
class Line:
    """What is measured once per seed: a detector's figure at one point of the grid."""

    point: tuple[str, ...]
    method: str
    detector: str
    metric: str
    shots: int


@dataclass(frozen=True)
class Mean:
    """A figure over seeds; the interval is of 1,000 resamples of test images and seeds."""

    value: float
    interval: Interval


def by_line(found: Iterable[Figure]) -> dict[Line, dict[int, Figure]]:
    """The figures of every seed together."""
    lines: dict[Line, dict[int, Figure]] = {}
    for figure in found:
        line = Line(figure.cell.point, figure.method, figure.detector, figure.metric, figure.shots)
        lines.setdefault(line, {})[figure.cell.seed] = figure
    return lines


def mean(own: BySeed) -> Mean:
    """The mean over the seeds."""
    resamples = {seed: figure.resamples for seed, figure in own.items() if figure.resamples is not None}
    interval = over_seeds(resamples) if len(resamples) == len(own) else None
    return Mean(fmean(figure.value for figure in own.values()), interval)


def gain(own: BySeed, other: BySeed) -> Gain | None:
    """`own` less `other`, seed by seed: in a seed both met the same supports and, where test images are the same, the
    same resamples. None without a common seed.
    """
    common = sorted(set(own) & set(other))
    if not common:
        return None
    differences = {}
    for seed in common:
        left, right = own[seed].resamples, other[seed].resamples
        if left is not None and right is not None and left.shape == right.shape:
            differences[seed] = np.subtract(left, right)
    interval = over_seeds(differences) if len(differences) == len(common) else None
    return Gain(fmean(own[seed].value - other[seed].value for seed in common), interval)
