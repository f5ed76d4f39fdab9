"""The answer of a run: per method, the federated figure among everything it is compared with, whoever wins."""

from collections.abc import Sequence
from dataclasses import dataclass

from fed_fsad.evaluation.report.load import Run
from fed_fsad.evaluation.report.records import MethodSummary
from fed_fsad.evaluation.report.words import ARMS, entry_title, method_title, score


@dataclass(frozen=True)
class Entry:
    """One figure under comparison. group: "arm" (the method itself) or "baseline"."""

    key: str
    title: str
    value: float
    group: str


@dataclass(frozen=True)
class Result:
    """One method's comparison. entries: best first; at equal figures arms before baselines."""

    method: str
    title: str
    figure: str
    entries: tuple[Entry, ...]
    interval: tuple[float, float] | None

    @property
    def federated(self) -> Entry | None:
        """The federation's own entry, if it has a figure."""
        return next((entry for entry in self.entries if entry.key == "federated"), None)

    @property
    def sentence(self) -> str:
        """What a reader should take away, in one sentence; the best opponent is named, whoever wins."""
        own = self.federated
        if own is None:
            return f"No federated {self.figure} was recorded."
        said = f"The federated model reaches {score(own.value)}"
        if self.interval:
            said += f" (95\u00a0% interval {score(self.interval[0])} to {score(self.interval[1])})"
        said += f" in {self.figure}"
        others = [entry for entry in self.entries if entry is not own]
        if not others:
            return said + "."
        return f"{said}; {_against(own.value, others[0], self.interval)}."


def _against(own: float, best: Entry, interval: tuple[float, float] | None) -> str:
    """How the strongest of the others compares; figures equal to three decimals count as equal."""
    name = f"“{best.title}”"
    if score(own) == score(best.value):
        return f"{name} reaches the same figure"
    if own > best.value:
        return f"everything else is lower, the nearest is {name} at {score(best.value)}"
    inside = interval is not None and best.value <= interval[1]
    return f"{name} is higher at {score(best.value)}" + (", inside that interval" if inside else "")


def results(run: Run) -> tuple[Result, ...]:
    """Every method's comparison. Before the summary exists: the last evaluation's federated figure alone."""
    if run.summary and run.summary.methods:
        return tuple(_summed(name, run.summary.methods[name]) for name in sorted(run.summary.methods))
    latest = {line.method: line for line in run.evaluations}
    return tuple(
        Result(
            name, method_title(name), f"{line.headline_name}, after round {line.round}", _entries(line.headline), None
        )
        for name, line in sorted(latest.items())
    )


def _summed(name: str, summary: MethodSummary) -> Result:
    arms = {"federated": summary.headline} | summary.arms
    found = [
        Entry(key, entry_title(key), value, group)
        for group, values in (("arm", arms), ("baseline", summary.baselines))
        for key, value in values.items()
        if value is not None
    ]
    ranked = sorted(found, key=lambda entry: (-entry.value, entry.group))
    return Result(name, method_title(name), summary.headline_name, tuple(ranked), summary.interval)


def _entries(headline: float | None) -> tuple[Entry, ...]:
    return () if headline is None else (Entry("federated", ARMS["federated"], headline, "arm"),)


def span(every: Sequence[Result]) -> tuple[float, float]:
    """An axis that holds every figure, every interval and, for the most, chance at 0.5; with a little air."""
    values = [entry.value for result in every for entry in result.entries]
    values += [end for result in every for end in result.interval or ()]
    low, high = min([0.5, *values]), max([0.5, *values])
    air = 0.05 * (high - low) or 0.05
    return low - air, high + air


def compared(every: Sequence[Result]) -> tuple[tuple[str, str, str], ...]:
    """All that any method is compared with, as (group, key, title): arms in their fixed order, then baselines."""
    seen = {(entry.group, entry.key): entry.title for result in every for entry in result.entries}
    order = {key: i for i, key in enumerate(ARMS)}
    ranked = sorted(seen, key=lambda pair: (pair[0], order.get(pair[1], len(order)), pair[1]))
    return tuple((group, key, seen[group, key]) for group, key in ranked)
