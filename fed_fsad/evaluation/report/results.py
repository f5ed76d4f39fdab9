"""The answer of a run: per method, the federated figure beside everything it is compared with, whoever wins."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_fsad.evaluation.metrics import percentiles
from fed_fsad.evaluation.report.lines import Interval
from fed_fsad.evaluation.report.load import Run
from fed_fsad.evaluation.report.words import ARMS, entry_title, method_title, score

MOST_SITES = 6
"""A federation of more sites shows their local-only models as one mean in the comparison; the sites' table has all."""


@dataclass(frozen=True)
class Gain:
    """The federated figure less another. interval: 95 %, paired over the test images; None where it was not kept."""

    value: float
    interval: Interval

    @property
    def verdict(self) -> str:
        """better, worse, or open: what the interval says of the federation; "" without one."""
        if self.interval is None:
            return ""
        low, high = self.interval
        return "better" if low > 0 else "worse" if high < 0 else "open"


@dataclass(frozen=True)
class Question:
    """How the federated model stands against `other`."""

    other: str
    gain: Gain

    @property
    def verdict(self) -> str:
        """better, worse, open, or "" where the difference has no interval."""
        return self.gain.verdict

    @property
    def word(self) -> str:
        """The verdict as it is read; figures that are equal to three decimals count as equal."""
        if self.verdict:
            return {"better": "better", "worse": "worse", "open": "not told apart"}[self.verdict]
        equal = score(abs(self.gain.value)) == score(0)
        return "equal" if equal else "higher" if self.gain.value > 0 else "lower"

    @property
    def rest(self) -> str:
        """The rest of the sentence."""
        joint = {"not told apart": "from", "equal": "to"}.get(self.word, "than")
        return f"{joint} {self.other}"


@dataclass(frozen=True)
class Entry:
    """One figure under comparison. group: "arm" (the method itself), "site" (trained at one) or "baseline"."""

    group: str
    key: str
    title: str
    value: float
    interval: Interval
    gain: Gain | None


@dataclass(frozen=True)
class Result:
    """One method's comparison: arms in their fixed order, each site alone, then baselines, best first."""

    method: str
    title: str
    figure: str
    entries: tuple[Entry, ...]

    def entry(self, group: str, key: str) -> Entry | None:
        """The entry of that name."""
        return next((entry for entry in self.entries if (entry.group, entry.key) == (group, key)), None)

    @property
    def federated(self) -> Entry | None:
        """The federation's own entry, if it has a figure."""
        return self.entry("arm", "federated")

    @property
    def best_baseline(self) -> Entry | None:
        """The strongest detector that needs no training."""
        return next((entry for entry in self.entries if entry.group == "baseline"), None)

    @property
    def meaning(self) -> str:
        """The federated figure as a person may picture it; "" for figures that are no AUROC."""
        if self.federated is None or "AUROC" not in self.figure:
            return ""
        among = "averaged over categories, an image that shows one" if "P1" in self.figure else "an abnormal image"
        pairs = round(100 * self.federated.value)
        return f"In {pairs} of 100 pairs, {among} gets a higher score than a normal one; 50 would be guessing."

    @property
    def questions(self) -> tuple[Question, ...]:
        """What a reader asks first, whoever wins."""
        best = self.best_baseline
        asked = [
            ("a site on its own, on average", self.entry("arm", "local")),
            ("training on all images in one place", self.entry("arm", "pooled")),
            ("the same model before training", self.entry("arm", "untrained")),
            (f"the best simple baseline, {best.title}" if best else "", best),
        ]
        return tuple(
            Question(words, entry.gain) for words, entry in asked if entry is not None and entry.gain is not None
        )


@dataclass(frozen=True)
class _Known:
    """What is known of one detector; resamples: the headline on resampled test images, [n]."""

    value: float | None
    interval: Interval = None
    resamples: NDArray[np.float64] | None = None


def results(run: Run) -> tuple[Result, ...]:
    """Every method's comparison, of what the run has evaluated so far."""
    return tuple(found for name in run.methods if (found := _result(run, name)) is not None)


def _result(run: Run, method: str) -> Result | None:
    summed = run.summary.methods.get(method) if run.summary else None
    latest = next((line for line in reversed(run.evaluations) if line.method == method), None)
    closed = summed is not None and bool(summed.arms or summed.headline is not None)
    if latest is None and not closed:
        return None
    if summed is not None and closed:
        figure = summed.headline_name
    else:
        assert latest is not None
        figure = f"{latest.headline_name}, after round {latest.round}"
    known = _known(run, method)
    own = known.get(("arm", "federated"))
    entries = [_entry(group, key, found, own) for (group, key), found in known.items() if found.value is not None]
    return Result(method, method_title(method), figure, tuple(sorted(entries, key=_order)))


def _entry(group: str, key: str, found: _Known, own: _Known | None) -> Entry:
    assert found.value is not None
    title = f"{key}, on its own" if group == "site" else entry_title(key)
    gain = None
    if own is not None and own.value is not None and found is not own:
        paired = None
        if own.resamples is not None and found.resamples is not None and own.resamples.shape == found.resamples.shape:
            paired = percentiles(own.resamples - found.resamples)
        gain = Gain(own.value - found.value, paired)
    return Entry(group, key, title, found.value, found.interval, gain)


def _order(entry: Entry) -> tuple[int, float, str]:
    """Federated, pooled, local mean, each site, untrained, then baselines by their figure."""
    arms = list(ARMS)
    if entry.group == "baseline":
        return len(arms) + 1, -entry.value, entry.title
    place = arms.index("local") if entry.group == "site" else arms.index(entry.key) if entry.key in arms else len(arms)
    return place, float(entry.group == "site"), entry.key


def _known(run: Run, method: str) -> dict[tuple[str, str], _Known]:
    """Every detector by (group, key): the closing word is the summary's; intervals are those of the run's lines."""
    lines = _of_lines(run, method)
    summed = run.summary.methods.get(method) if run.summary else None
    if run.summary is None or summed is None:
        return lines
    values: dict[tuple[str, str], float | None] = {("arm", "federated"): summed.headline}
    values |= {("arm", key): value for key, value in summed.arms.items()}
    sites = {name: site.local.get(method) for name, site in run.summary.sites.items()}
    if len(sites) <= MOST_SITES:
        values |= {("site", name): value for name, value in sites.items()}
    values |= {("baseline", key): value for key, value in summed.baselines.items()}
    intervals = {about: found.interval for about, found in lines.items()}
    if summed.interval is not None:
        intervals[("arm", "federated")] = summed.interval
    kept = {about: found.resamples for about, found in lines.items()}
    told = {about: _Known(value, intervals.get(about), kept.get(about)) for about, value in values.items()}
    return lines | {about: found for about, found in told.items() if found.value is not None}


def _of_lines(run: Run, method: str) -> dict[tuple[str, str], _Known]:
    kept = {name: np.array(values) for name, values in run.resamples.get(method, {}).items()}
    own = [line for line in run.evaluations if line.method == method]
    found: dict[tuple[str, str], _Known] = {}
    if own:
        found["arm", "federated"] = _Known(own[-1].headline, own[-1].interval, kept.get("federated"))
    if own and own[0].round == 0:
        found["arm", "untrained"] = _Known(own[0].headline, own[0].interval, kept.get("untrained"))
    arms = [line for line in run.arms if line.method == method]
    local = [line for line in arms if line.site is not None and line.headline is not None]
    for line in arms:
        if line.site is None:
            found["arm", line.arm] = _Known(line.headline, line.interval, kept.get(line.arm))
        elif len(local) <= MOST_SITES:
            found["site", line.site] = _Known(line.headline, line.interval, kept.get(f"local-{line.site}"))
    if local:
        found["arm", "local"] = _mean([x.headline for x in local], [kept.get(f"local-{x.site}") for x in local])
    for baseline in (line for line in run.baselines if line.method == method):
        resamples = kept.get(f"baseline-{baseline.name}")
        found["baseline", baseline.name] = _Known(baseline.headline, baseline.interval, resamples)
    return found


def _mean(values: Sequence[float | None], resamples: Sequence[NDArray[np.float64] | None]) -> _Known:
    """The mean of the sites; its interval comes from the mean on the same resampled images."""
    whole = [x for x in resamples if x is not None]
    same = len(whole) == len(values) and len({x.shape for x in whole}) == 1
    mean = np.mean(whole, axis=0) if same else None
    return _Known(float(np.mean([x for x in values if x is not None])), percentiles(mean), mean)


def span(every: Sequence[Result]) -> tuple[float, float]:
    """An axis that holds every figure, every interval and, for the most, chance at 0.5; with a little air."""
    entries = [entry for result in every for entry in result.entries]
    values = [0.5, *(entry.value for entry in entries), *(end for entry in entries for end in entry.interval or ())]
    low, high = min(values), max(values)
    air = 0.05 * (high - low) or 0.05
    return low - air, high + air
