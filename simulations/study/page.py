"""The report of a study: per method and figure, plots against the axis and tables of paired differences."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from fed_fsad.evaluation.report.results import Gain
from fed_fsad.evaluation.report.svg import Chart
from fed_fsad.evaluation.report.table import Cell as Box
from fed_fsad.evaluation.report.table import Table, table
from fed_fsad.evaluation.report.words import ARMS, difference, entry_title, interval, method_title, score
from simulations.batch.draws import HEADLINE, shown_shots
from simulations.batch.table import TITLES
from simulations.study.collect import Cost, Figure
from simulations.study.compare import BySeed, Line, by_line, gain, mean
from simulations.study.picture import Series, against, scattered
from simulations.study.settings import StudySettings

BASELINES = ("zero_shot", "knn", "knn_pooled")
"""Drawn and put beside the arms; the others stand in results.csv."""
VERDICTS = {"better": "better", "worse": "worse", "open": "not told apart", "": ""}


@dataclass(frozen=True)
class Part:
    """What the study says of one figure of one method. name: unique in the page."""

    name: str
    title: str
    charts: tuple[Chart, ...]
    tables: tuple[Table, ...]


@dataclass(frozen=True)
class Findings:
    """Everything complete, and what it cost by cell."""

    settings: StudySettings
    found: Sequence[Figure]
    costs: Mapping[str, Cost]

    @cached_property
    def lines(self) -> dict[Line, dict[int, Figure]]:
        """The figures of every seed together."""
        return by_line(self.found)

    @cached_property
    def points(self) -> list[tuple[str, ...]]:
        """The points of the grid that have figures, in its order."""
        return list(dict.fromkeys(figure.cell.point for figure in self.found))

    def detectors(self, method: str) -> list[str]:
        """The method's arms, and the baselines that are shown."""
        there = {line.detector for line in self.lines if line.method == method}
        return [detector for detector in (*ARMS, *BASELINES) if detector in there]

    def megabytes(self, point: tuple[str, ...]) -> float:
        """What the federation moves at a point, both ways, the mean over seeds."""
        own = {figure.cell.name for figure in self.found if figure.cell.point == point}
        return sum(self.costs[name].bytes_up + self.costs[name].bytes_down for name in own) / len(own) / 1e6


def parts(findings: Findings) -> Iterator[Part]:
    """A part per method and figure that anything was measured of."""
    for method in sorted({figure.method for figure in findings.found}):
        shots = sorted({figure.shots for figure in findings.found if figure.method == method})
        for metric in findings.settings.figures or (HEADLINE.get(method, "image_auroc"),):
            best = Line((), method, "federated", metric, shown_shots(method, shots))
            if any(replace(best, point=point) in findings.lines for point in findings.points):
                name = f"{method}-{metric}".replace("_", "-")
                title = f"{method_title(method)}: {TITLES.get(metric) or entry_title(metric)}"
                charts = tuple(_charts(findings, best, shots, name, title))
                yield Part(name, title, charts, tuple(_tables(findings, best, shots, name)))


def _charts(findings: Findings, best: Line, shots: Sequence[int], name: str, title: str) -> Iterator[Chart]:
    axis, axes = findings.settings.drawn, list(findings.settings.axes)
    if axis == "bytes":
        marks = [(point, findings.lines.get(replace(best, point=point))) for point in findings.points]
        drawn = [(", ".join(point), findings.megabytes(point), mean(own)) for point, own in marks if own]
        yield scattered(drawn, f"{name}-bytes", f"{title}, K = {best.shots}")
        return
    others = [other for other in axes if other != axis]
    apart = len(others) - 1 if others else 0  # the last of the other axes gives lines, the others give charts
    groups = dict.fromkeys(tuple(_at(findings, point, others)[:apart]) for point in findings.points)
    for i, group in enumerate(groups):
        own = [point for point in findings.points if _at(findings, point, others)[:apart] == list(group)]
        ticks = [str(k) for k in shots] if axis == "shots" else list(findings.settings.axes[axis])
        where = [f"K = {best.shots}"] if axis != "shots" else []
        where += [f"{_short(other)} {own_label}" for other, own_label in zip(others, group, strict=False)]
        series = _series(findings, best, own, others[apart:], ticks)
        heading = ", ".join([title, *where])
        yield against(ticks, "K" if axis == "shots" else _short(axis), series, f"{name}-{i}", heading)


def _series(
    findings: Findings, best: Line, points: Sequence[tuple[str, ...]], others: Sequence[str], ticks: Sequence[str]
) -> list[Series]:
    """A line per arm and label of the last other axis; of baselines, which hardly depend on it, the first's only."""
    axis = findings.settings.drawn
    series: dict[tuple[str, str], Series] = {}
    for detector in findings.detectors(best.method):
        for point in points:
            own_label = ", ".join(_at(findings, point, others))
            places = enumerate(ticks) if axis == "shots" else [(ticks.index(_at(findings, point, [axis])[0]), "")]
            for place, tick in places:
                line = replace(best, point=point, detector=detector, shots=int(tick or best.shots))
                if (found := findings.lines.get(line)) is None:
                    continue
                trained = detector not in (*BASELINES, "untrained")
                key = (detector, own_label if trained else "")
                title = ", ".join(filter(None, (entry_title(detector), key[1])))
                means = series.setdefault(key, Series(title, {}, trained)).means
                means.setdefault(place, mean(found))
    return list(series.values())


def _tables(findings: Findings, best: Line, shots: Sequence[int], name: str) -> Iterator[Table]:
    every = [replace(best, shots=k) for k in (shots if findings.settings.drawn == "shots" else [best.shots])]
    columns = [_short(axis) for axis in findings.settings.axes]
    rows = [row for line in every for point in findings.points for row in _arms(findings, line, point)]
    heads = [*columns, "trained as", "K", "figure", "federated less it", ""]
    made = table(f"{name}-arms", "Federated against the others", heads, rows, len(columns) + 1)
    yield from filter(None, [made])
    for axis in findings.settings.axes:
        first = findings.settings.axes[axis][0]
        changed = [row for line in every for row in _moved(findings, line, axis)]
        heads = ["K", "federated", f"less that with {first}", ""]
        made = table(
            f"{name}-{_short(axis)}", f"Federated, by {_short(axis)}", [*columns, *heads], changed, len(columns)
        )
        yield from filter(None, [made])


def _arms(findings: Findings, best: Line, point: tuple[str, ...]) -> Iterator[list[Box]]:
    """A row per detector that was measured at a point: its figure, and what the federation has more than it."""
    own = findings.lines.get(replace(best, point=point))
    for detector in findings.detectors(best.method):
        if (other := findings.lines.get(replace(best, point=point, detector=detector))) is None:
            continue
        less = gain(own, other) if own and detector != "federated" else None
        what = [*map(Box, point), Box(entry_title(detector)), Box(str(best.shots), best.shots)]
        yield [*what, _figure(other), *_difference(less)]


def _moved(findings: Findings, best: Line, axis: str) -> Iterator[list[Box]]:
    """A row per point whose like with the axis' first value is there, too."""
    place, first = list(findings.settings.axes).index(axis), findings.settings.axes[axis][0]
    for point in findings.points:
        start = (*point[:place], first, *point[place + 1 :])
        own, reference = (findings.lines.get(replace(best, point=p)) for p in (point, start))
        if point == start or own is None or reference is None or (moved := gain(own, reference)) is None:
            continue
        yield [*map(Box, point), Box(str(best.shots), best.shots), _figure(own), *_difference(moved)]


def _figure(own: BySeed) -> Box:
    found = mean(own)
    return Box(score(found.value), found.value, interval(found.interval) if found.interval else "")


def _difference(less: Gain | None) -> tuple[Box, Box]:
    if less is None:
        return Box(""), Box("")
    return Box(difference(less.value), less.value, interval(less.interval, True)), Box(VERDICTS[less.verdict])


def _at(findings: Findings, point: tuple[str, ...], axes: Sequence[str]) -> list[str]:
    return [point[list(findings.settings.axes).index(axis)] for axis in axes]


def _short(axis: str) -> str:
    """The last word of a config key."""
    return axis.rsplit(".", 1)[-1]
