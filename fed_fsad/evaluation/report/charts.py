"""The report's figures, each drawn from a loaded run. None is returned where there is nothing to draw."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fed_fsad.evaluation.report import svg
from fed_fsad.evaluation.report.load import Run
from fed_fsad.evaluation.report.records import Details, Roc, SiteLine
from fed_fsad.evaluation.report.results import Result
from fed_fsad.evaluation.report.svg import BAD, GRID, INK, MUTED, Chart, colour, marker
from fed_fsad.evaluation.report.words import data_size, entry_title, figure_title, plain, score

WIDTH, HEIGHT = 400.0, 225.0
DETECTION_HEIGHT = 270.0
Series = Mapping[str, Sequence[tuple[int, float]]]
STATUSES = {
    "ok": ("o", colour(0), "took part", "series-0", "●"),
    "rejected": ("X", BAD, "reply rejected", "bad", "✖"),
    "refused": ("D", colour(1), "refused by its policy", "series-1", "◆"),
    "budget_spent": ("s", colour(1), "privacy budget spent", "series-1", "■"),
    "error": ("v", BAD, "error", "bad", "▼"),
    "no reply": ("_", MUTED, "no reply", "muted", "–"),
}


def forest(result: Result, name: str, span: tuple[float, float]) -> Chart | None:
    """The method's comparison, best on top; filled dots are the method itself, open dots are baselines.

    span: the axis, one for all methods, so that panels side by side compare.
    """
    if not result.entries:
        return None
    figure, axes = svg.canvas(WIDTH, 60 + 25 * len(result.entries))
    for row, entry in enumerate(reversed(result.entries)):
        own = entry.key == "federated" and entry.group == "arm"
        ink = colour(0) if own else MUTED
        if own and result.interval:
            axes.plot(result.interval, (row, row), color=ink, linewidth=2.4, solid_capstyle="round")
        face = ink if entry.group == "arm" else "none"
        axes.plot(entry.value, row, "o", color=ink, markersize=9 if own else 7, markerfacecolor=face)
        axes.annotate(
            score(entry.value), (1.0, row), (10, 0), ("axes fraction", "data"), "offset points", va="center",
            color=INK if own else MUTED, fontsize=10, fontweight="bold" if own else "normal", annotation_clip=False,
        )  # fmt: skip
    if "AUROC" in result.figure:
        axes.axvline(0.5, color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.annotate("chance", (0.5, 1.0), (0, 3), ("data", "axes fraction"), "offset points", ha="center",
                      va="bottom", color=MUTED, fontsize=9)  # fmt: skip
    axes.set_yticks(range(len(result.entries)), [entry.title for entry in reversed(result.entries)])
    for label, entry in zip(axes.get_yticklabels(), reversed(result.entries), strict=True):
        label.set(color=INK, fontweight="bold" if entry.key == "federated" else "normal")
    axes.set_ylim(-0.7, len(result.entries) - 0.3)
    axes.set_xlim(span)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    title = f"{result.title}: {result.figure}"
    return Chart(title, svg.inline(figure, name, title))


def _curves(series: Series, name: str, title: str, zero: bool = False) -> Chart | None:
    """Lines over rounds, one per name, in the same colour on every chart of the same names.

    zero: the axis starts at 0, as it should for an amount that is spent.
    """
    if not any(series.values()):
        return None
    figure, axes = svg.canvas(WIDTH, HEIGHT)
    for i, points in enumerate(series.values()):
        rounds, values = [x for x, _ in points], [y for _, y in points]
        axes.plot(rounds, values, color=colour(i), marker=marker(i), markersize=4.5, linewidth=1.8, clip_on=False)
    if zero:
        axes.set_ylim(bottom=0)
    _round_axis(axes)
    legend = tuple(key for key, points in zip(svg.keys(list(series)), series.values(), strict=True) if points)
    return Chart(title, svg.inline(figure, name, title), legend)


def _round_axis(axes: Axes) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("round", color=MUTED, fontsize=10)


def detection(run: Run, method: str, title: str, name: str) -> Chart | None:
    """Image AUROC after every evaluated round, per K or protocol, and the pixel AUROC where masks exist."""
    lines = [line for line in run.evaluations if line.method == method]
    kinds = sorted({key for line in lines for key in line.image_auroc}, key=lambda key: (len(key), key))
    series: dict[str, list[tuple[int, float]]] = {
        f"image AUROC, {figure_title(key)}": [(x.round, v) for x in lines if (v := x.image_auroc.get(key)) is not None]
        for key in kinds
    }
    series["pixel AUROC"] = [(line.round, line.pixel_auroc) for line in lines if line.pixel_auroc is not None]
    return _curves(series, name, f"{title}: detection on the server's test images")


def losses(run: Run, method: str, title: str, name: str) -> Chart | None:
    """Mean training loss per site; a site that trains privately keeps its loss to itself."""
    series = {
        site: [
            (line.round, loss)
            for line in run.site_rounds
            if line.site == site and method in line.methods and (loss := line.methods[method].loss) is not None
        ]
        for site in run.sites
    }
    return _curves(series, name, f"{title}: training loss per site")


def privacy(run: Run, name: str) -> Chart | None:
    """ε spent so far, per site that trains with differential privacy."""
    series = {
        site: [(x.round, x.epsilon) for x in run.site_rounds if x.site == site and x.epsilon is not None]
        for site in run.sites
    }
    return _curves(series, name, "ε spent over all rounds so far, per site", zero=True)


def roc(curves: Mapping[str, Roc], title: str, name: str) -> Chart | None:
    """Receiver operating characteristics over the same test images."""
    if not curves:
        return None
    figure, axes = svg.canvas(WIDTH, DETECTION_HEIGHT)
    axes.plot((0, 1), (0, 1), color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
    for i, curve in enumerate(curves.values()):
        axes.plot(curve.fpr, curve.tpr, color=colour(i), linewidth=1.8, clip_on=False)
        shown = [int(np.argmin(np.abs(np.asarray(curve.fpr) - at))) for at in (0.1, 0.3, 0.6)] if curve.fpr else []
        axes.plot(curve.fpr, curve.tpr, marker(i), color=colour(i), markersize=5, markevery=shown)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=np.linspace(0, 1, 6), yticks=np.linspace(0, 1, 6))
    axes.set_box_aspect(0.75)
    axes.set_xlabel("false positive rate (1 − specificity)", color=MUTED, fontsize=10)
    axes.set_ylabel("true positive rate (sensitivity)", color=MUTED, fontsize=10)
    title = f"{title}: receiver operating characteristic"
    labels = [figure_title(key) if key.isdigit() else entry_title(key) for key in curves]
    return Chart(title, svg.inline(figure, name, title), svg.keys(labels), "dotted: chance")


def histogram(details: Details, task: str, title: str, name: str) -> Chart | None:
    """Image scores of one task, normal against abnormal, on common bins."""
    groups = [np.array([s.score for s in details.scores if s.task == task and bool(s.label) == bad]) for bad in (0, 1)]
    if not sum(map(len, groups)):
        return None
    edges = np.histogram_bin_edges(np.concatenate(groups), bins=min(24, max(6, sum(map(len, groups)) // 5)))
    figure, axes = svg.canvas(WIDTH, DETECTION_HEIGHT)
    for i, values in enumerate(groups):
        counts = np.histogram(values, edges)[0]
        axes.stairs(counts, edges, fill=True, color=colour(i), alpha=0.28, linewidth=0)
        axes.stairs(counts, edges, color=colour(i), linewidth=1.8, linestyle=("-", (0, (4, 1.5)))[i])
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("image score, higher is more abnormal", color=MUTED, fontsize=10)
    axes.set_ylabel("test images", color=MUTED, fontsize=10)
    names = [f"{word} ({len(values)})" for word, values in zip(("normal", "abnormal"), groups, strict=True)]
    title = f"{title}: scores on {plain(task)}"
    return Chart(title, svg.inline(figure, name, title), svg.keys(names, ("━", "╍")))


def traffic(run: Run, name: str) -> Chart | None:
    """Bytes per round and direction."""
    if not run.rounds:
        return None
    figure, axes = svg.canvas(WIDTH, HEIGHT)
    rounds = np.array([line.round for line in run.rounds])
    amounts = ([line.bytes_down for line in run.rounds], [line.bytes_up for line in run.rounds])
    for i, values in enumerate(amounts):
        axes.bar(rounds + (i - 0.5) * 0.36, values, 0.34, color=colour(i), alpha=(1, 0.75)[i])
    axes.yaxis.set_major_formatter(lambda value, _: data_size(value))
    _round_axis(axes)
    axes.set_ylim(bottom=0)
    title = "Bytes per round and direction"
    return Chart(title, svg.inline(figure, name, title), svg.keys(("to the sites", "to the server"), ("■", "■")))


def attendance(run: Run, name: str) -> Chart | None:
    """Which site took part in which round, and how it failed where it did."""
    if not run.site_rounds:
        return None
    sites = run.sites[::-1]
    rounds = sorted({line.round for line in run.site_rounds})
    figure, axes = svg.canvas(WIDTH, max(HEIGHT, 60 + 26 * len(sites)))
    for status, (shape, ink, *_) in STATUSES.items():
        lines = [line for line in run.site_rounds if _status(line) == status]
        axes.plot([x.round for x in lines], [sites.index(x.site) for x in lines], shape, color=ink, markersize=7)
    axes.set_yticks(range(len(sites)), sites)
    axes.set(ylim=(-0.7, len(sites) - 0.3), xlim=(rounds[0] - 0.6, rounds[-1] + 0.6))
    _round_axis(axes)
    seen = {_status(line) for line in run.site_rounds}
    legend = tuple(svg.Key(words, css, glyph) for key, (_, _, words, css, glyph) in STATUSES.items() if key in seen)
    title = "Who took part in which round"
    return Chart(title, svg.inline(figure, name, title), legend)


def _status(line: SiteLine) -> str:
    """The line's status if it has a mark of its own; every other word means that something went wrong."""
    return line.status if line.status in STATUSES else "error"
