"""Figures over rounds, each drawn from a loaded run. None is returned where there is nothing to draw."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fed_fsad.evaluation.report import svg
from fed_fsad.evaluation.report.lines import EvaluationLine
from fed_fsad.evaluation.report.load import Run
from fed_fsad.evaluation.report.sheet import Value, sheet
from fed_fsad.evaluation.report.svg import MUTED, Chart, colour, marker
from fed_fsad.evaluation.report.words import figure_title

WIDTH, HEIGHT = 400.0, 225.0
THIRD = 262.0, 205.0
"""Sizes in points of charts two and three to a row."""
Points = Sequence[tuple[int, float]]
Series = Mapping[str, Points]


MOST_SITES = 40
"""Lines in one chart; a thousand of them can neither be told apart nor drawn in a minute."""


def headline(run: Run, method: str, title: str, name: str) -> Chart | None:
    """The headline figure after every evaluated round, with its 95 % interval as a band."""
    lines = [line for line in run.evaluations if line.method == method and line.headline is not None]
    if not lines:
        return None
    figure, axes = svg.canvas(*THIRD)
    rounds, values = [line.round for line in lines], [line.headline or 0.0 for line in lines]
    ends = [line.interval or (value, value) for line, value in zip(lines, values, strict=True)]
    axes.fill_between(rounds, [low for low, _ in ends], [high for _, high in ends], color=colour(0), alpha=0.16, lw=0)
    axes.plot(rounds, values, color=colour(0), marker=marker(0), markersize=4.5, linewidth=1.8, clip_on=False)
    round_axis(axes)
    title = f"{title}: {lines[-1].headline_name}, by round"
    rows = [(line.round, line.headline, *(line.interval or (None, None))) for line in lines]
    numbers = sheet(("round", "figure", "95 % from", "95 % to"), rows)
    note = "band: 95 % interval over the test images" if any(line.interval for line in lines) else ""
    return Chart(name, title, svg.inline(figure, name, title), numbers, note=note)


def detection(run: Run, method: str, title: str, name: str) -> Chart | None:
    """Image AUROC after every evaluated round, per K or protocol, and the pixel AUROC where masks exist."""
    lines = [line for line in run.evaluations if line.method == method]
    kinds = sorted({key for line in lines for key in line.image_auroc}, key=lambda key: (len(key), key))
    series: dict[str, Points] = {f"AUROC, {figure_title(key)}": _auroc(lines, key) for key in kinds}
    series["pixel AUROC"] = [(line.round, line.pixel_auroc) for line in lines if line.pixel_auroc is not None]
    return _curves(series, name, f"{title}: every figure, by round")


def _auroc(lines: Sequence[EvaluationLine], key: str) -> Points:
    return [(line.round, value) for line in lines if (value := line.image_auroc.get(key)) is not None]


def losses(run: Run, method: str, title: str, name: str) -> Chart | None:
    """Mean training loss per site; a site that trains privately keeps its loss to itself."""
    series = {
        site: [
            (line.round, loss)
            for line in run.site_rounds
            if line.site == site and method in line.methods and (loss := line.methods[method].loss) is not None
        ]
        for site in run.sites[:MOST_SITES]
    }
    shown = f", {MOST_SITES} of {len(run.sites)} sites" if len(run.sites) > MOST_SITES else " per site"
    return _curves(series, name, f"{title}: training loss{shown}")


def privacy(run: Run, name: str) -> Chart | None:
    """ε after every round, per site under differential privacy: the most that its replies or its ledger say."""
    series = {site: _spent(run, site) for site in run.sites}
    budgets = {site: budget for site in run.sites if series[site] and (budget := stated_budget(run, site)) is not None}

    def finish(axes: Axes) -> None:
        for site, budget in budgets.items():
            axes.axhline(budget, color=colour(run.sites.index(site)), linewidth=1, linestyle=(0, (4, 3)))
        axes.set_ylim(bottom=0)

    chart = _curves(series, name, "ε spent over all rounds so far, per site", "ε", finish)
    return replace(chart, note="dashed: the site's budget") if chart and budgets else chart


def stated_budget(run: Run, site: str) -> float | None:
    """ε that a simulated hospital's policy allows; a real one keeps its policy to itself."""
    hospital = next((found for found in run.hospitals if found["name"] == site), {})
    budget = (hospital.get("policy") or {}).get("epsilon")
    return float(budget) if isinstance(budget, int | float) else None


def _spent(run: Run, site: str) -> Points:
    told = [(line.round, line.epsilon) for line in run.site_rounds if line.site == site and line.epsilon is not None]
    charges = run.accounts[site].charges if site in run.accounts else ()
    charged = [(x.request.round, x.epsilon_after) for x in charges if x.request.round and x.epsilon_after is not None]
    most: dict[int, float] = {}
    for round_, epsilon in sorted([*told, *charged]):
        most[round_] = max(epsilon, most.get(round_, 0.0))
    return [(0, 0.0), *most.items()] if most else []


def _curves(
    series: Series, name: str, title: str, unit: str = "value", finish: Callable[[Axes], None] | None = None
) -> Chart | None:
    """Lines over rounds, one per name, in the same colour on every chart of the same names.

    finish: draws more into a chart that stands two to a row.
    """
    if not any(series.values()):
        return None
    figure, axes = svg.canvas(*((WIDTH, HEIGHT) if finish else THIRD))
    for i, points in enumerate(series.values()):
        rounds, values = [x for x, _ in points], [y for _, y in points]
        axes.plot(rounds, values, color=colour(i), marker=marker(i), markersize=4.5, linewidth=1.8, clip_on=False)
    if finish:
        finish(axes)
    round_axis(axes)
    legend = tuple(key for key, points in zip(svg.keys(list(series)), series.values(), strict=True) if points)
    rows: list[tuple[Value, ...]] = [(label, x, y) for label, points in series.items() for x, y in points]
    return Chart(name, title, svg.inline(figure, name, title), sheet(("series", "round", unit), rows), legend)


def round_axis(axes: Axes) -> None:
    """Whole rounds, and the word for them."""
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("round", color=MUTED, fontsize=10)
