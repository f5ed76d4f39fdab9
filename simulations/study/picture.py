"""A figure of a study against an axis: a line per arm and variant, dashed ones for detectors that train nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import NullLocator

from fed_fsad.evaluation.report import svg
from fed_fsad.evaluation.report.sheet import sheet
from fed_fsad.evaluation.report.svg import GLYPHS, MUTED, Chart, Key, colour, marker
from simulations.study.compare import Mean

WIDTH, HEIGHT = 400.0, 240.0
DASHED = "–"
ASIDE = 0.05
"""How far lines stand aside of each other, so that their bars can be told apart; values are 1 apart."""


@dataclass(frozen=True)
class Series:
    """means: by place on the axis. trained: False for baselines, which are dashed."""

    label: str
    means: dict[int, Mean]
    trained: bool


def against(ticks: Sequence[str], axis: str, series: Sequence[Series], name: str, title: str) -> Chart:
    """Values of the axis stand evenly spaced in the order of the file; bars are 95 % intervals."""
    figure, axes = svg.canvas(WIDTH, HEIGHT)
    trained = [one for one in series if one.trained]
    for i, one in enumerate(series):
        at = sorted(one.means)
        values = [one.means[place].value for place in at]
        if one.trained:
            aside = ASIDE * (trained.index(one) - (len(trained) - 1) / 2)
            shown = [place + aside for place in at]
            axes.plot(shown, values, color=colour(i), marker=marker(i), markersize=4.5, linewidth=1.8, clip_on=False)
            for x, place in zip(shown, at, strict=True):
                if ends := one.means[place].interval:
                    axes.vlines(x, *ends, color=colour(i), linewidth=1, alpha=0.6)
        else:
            axes.plot(at, values, color=colour(i), linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlim(-0.4, len(ticks) - 0.6)
    axes.set_xlabel(axis, color=MUTED, fontsize=10)
    rows = [
        (one.label, ticks[place], own.value, *(own.interval or (None, None)))
        for one in series
        for place, own in sorted(one.means.items())
    ]
    numbers = sheet(("series", axis, "figure", "95 % from", "95 % to"), rows)
    note = "bars: 95 % intervals; dashed: trains nothing; values stand evenly spaced"
    return Chart(name, title, svg.inline(figure, name, title), numbers, _keys(series), note)


def scattered(points: Sequence[tuple[str, float, Mean]], name: str, title: str) -> Chart:
    """The figure against the megabytes that travelled, a mark per (variant, MB, figure)."""
    figure, axes = svg.canvas(WIDTH, HEIGHT)
    for i, (_, megabytes, own) in enumerate(points):
        axes.plot([megabytes], [own.value], color=colour(i), marker=marker(i), markersize=6, linewidth=0, clip_on=False)
        if own.interval:
            axes.vlines(megabytes, *own.interval, color=colour(i), linewidth=1, alpha=0.6)
    if all(megabytes > 0 for _, megabytes, _ in points):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    marks = sorted({megabytes for _, megabytes, _ in points})
    axes.set_xticks(marks, [f"{mark:.3g}" for mark in marks])
    axes.set_xlabel("MB that travelled, both ways", color=MUTED, fontsize=10)
    rows = [(label, megabytes, own.value, *(own.interval or (None, None))) for label, megabytes, own in points]
    numbers = sheet(("variant", "MB", "figure", "95 % from", "95 % to"), rows)
    keys = svg.keys([label for label, _, _ in points])
    return Chart(name, title, svg.inline(figure, name, title), numbers, keys, "bars: 95 % intervals")


def _keys(series: Sequence[Series]) -> tuple[Key, ...]:
    count = len(GLYPHS)
    glyphs = [GLYPHS[(i + i // count) % count] if one.trained else DASHED for i, one in enumerate(series)]
    return svg.keys([one.label for one in series], glyphs)
