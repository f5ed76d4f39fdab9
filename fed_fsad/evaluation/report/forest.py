"""The comparison of a method as a forest plot: a table whose middle column is drawn, so every figure stays text."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.ticker import MaxNLocator

from fed_fsad.evaluation.report.results import Entry, Result
from fed_fsad.evaluation.report.sheet import Sheet, sheet

GROUPS = {"arm": "The method", "site": "The method", "baseline": "Simple baselines, no training"}


@dataclass(frozen=True)
class Mark:
    """One row: its entry, and where figure and interval lie, in percent of the drawn column's width."""

    entry: Entry
    at: float
    ends: tuple[float, float] | None

    @property
    def own(self) -> bool:
        """Whether it is the federated model."""
        return (self.entry.group, self.entry.key) == ("arm", "federated")


@dataclass(frozen=True)
class Forest:
    """ticks: percent of the width and what stands there. chance: where guessing lies, None for other figures."""

    name: str
    result: Result
    groups: tuple[tuple[str, tuple[Mark, ...]], ...]
    ticks: tuple[tuple[float, str], ...]
    chance: float | None

    @property
    def sheet(self) -> Sheet:
        """Every figure with its interval, and the federation's gain with its own."""
        columns = (
            "detector",
            "group",
            "figure",
            "95 % from",
            "95 % to",
            "federated minus this",
            "95 % from",
            "95 % to",
        )
        return sheet(columns, [_row(mark.entry) for _, marks in self.groups for mark in marks])


def forest(result: Result, name: str, span: tuple[float, float]) -> Forest | None:
    """The method's comparison on the axis `span`, one for all methods, so that plots below each other compare."""
    if not result.entries:
        return None
    low, high = span

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    def mark(entry: Entry) -> Mark:
        ends = entry.interval and (place(entry.interval[0]), place(entry.interval[1]))
        return Mark(entry, place(entry.value), ends)

    titles = dict.fromkeys(GROUPS[entry.group] for entry in result.entries)
    groups = tuple((t, tuple(mark(x) for x in result.entries if GROUPS[x.group] == t)) for t in titles)
    ticks = [float(tick) for tick in MaxNLocator(7, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]
    return Forest(
        name,
        result,
        groups,
        tuple((place(tick), f"{np.round(tick, 6):g}") for tick in ticks),
        place(0.5) if "AUROC" in result.figure else None,
    )


def _row(entry: Entry) -> Sequence[float | str | None]:
    gain = entry.gain
    return (
        entry.title,
        entry.group,
        entry.value,
        *(entry.interval or (None, None)),
        None if gain is None else gain.value,
        *((gain and gain.interval) or (None, None)),
    )
