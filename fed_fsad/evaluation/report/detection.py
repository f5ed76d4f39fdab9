"""How well normal and abnormal are told apart, drawn: ROC, precision-recall, scores. None where there is nothing."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from fed_fsad.evaluation.report import svg
from fed_fsad.evaluation.report.operating import Operation
from fed_fsad.evaluation.report.records import Details, PrecisionRecall, Roc
from fed_fsad.evaluation.report.sheet import Value, sheet
from fed_fsad.evaluation.report.svg import INK, MUTED, Chart, colour, marker
from fed_fsad.evaluation.report.words import figure_title, plain

WIDTH, HEIGHT = 245.0, 240.0
DOTTED = (0, (2, 3))


def roc(curves: Mapping[str, Roc], at: Operation | None, name: str) -> Chart | None:
    """Receiver operating characteristics over the test images of one task; the ring is the operating point."""
    if not curves:
        return None
    figure, axes = svg.canvas(WIDTH, HEIGHT)
    axes.plot((0, 1), (0, 1), color=MUTED, linewidth=0.8, linestyle=DOTTED)
    for i, curve in enumerate(curves.values()):
        _line(axes, i, curve.fpr, curve.tpr, (0.1, 0.3, 0.6))
    if at is not None:
        _ring(axes, 1 - (at.specificity.value or 0), at.sensitivity.value or 0)
    _square(axes, "false positive rate (1 − specificity)", "true positive rate (sensitivity)")
    rows: list[tuple[Value, ...]] = [
        (key, *pair) for key, curve in curves.items() for pair in zip(curve.fpr, curve.tpr, strict=True)
    ]
    labels = [
        f"{figure_title(curve.label or key)}, area {np.trapezoid(curve.tpr, curve.fpr):.2f}"
        for key, curve in curves.items()
    ]
    title = "ROC curve"
    numbers = sheet(("curve", "false positive rate", "true positive rate"), rows)
    note = "ring: operating point; dotted: chance" if at else "dotted: chance"
    return Chart(name, title, svg.inline(figure, name, title), numbers, svg.keys(labels), note)


def precision_recall(curves: Mapping[str, PrecisionRecall], at: Operation | None, name: str) -> Chart | None:
    """Precision against recall of the same comparisons; the ring is the operating point."""
    if not curves:
        return None
    figure, axes = svg.canvas(WIDTH, HEIGHT)
    for i, curve in enumerate(curves.values()):
        axes.axhline(curve.prevalence, color=colour(i), linewidth=0.8, linestyle=DOTTED, alpha=0.8)
        _line(axes, i, curve.recall, curve.precision, (0.9, 0.6, 0.3), "steps-post")
    if at is not None and at.positive_predictive.value is not None:
        _ring(axes, at.sensitivity.value or 0, at.positive_predictive.value)
    _square(axes, "recall (sensitivity)", "precision (positive predictive value)")
    rows: list[tuple[Value, ...]] = [
        (key, *pair) for key, curve in curves.items() for pair in zip(curve.recall, curve.precision, strict=True)
    ]
    labels = [f"{figure_title(curve.label)}, guessing {curve.prevalence:.2f}" for curve in curves.values()]
    title = "Precision and recall"
    note = "ring: operating point; dotted: guessing" if at else "dotted: guessing"
    numbers = sheet(("curve", "recall", "precision"), rows)
    return Chart(name, title, svg.inline(figure, name, title), numbers, svg.keys(labels), note)


def histogram(details: Details, task: str, at: Operation | None, name: str) -> Chart | None:
    """Image scores of one task, normal against abnormal, on common bins; the upright line is the threshold."""
    scores = [scored for scored in details.scores if scored.task == task]
    groups = [np.array([x.score for x in scores if bool(x.label) == bad]) for bad in (False, True)]
    if not scores:
        return None
    edges = np.histogram_bin_edges(np.concatenate(groups), bins=min(24, max(6, len(scores) // 5)))
    figure, axes = svg.canvas(WIDTH, HEIGHT)
    for i, values in enumerate(groups):
        counts = np.histogram(values, edges)[0]
        axes.stairs(counts, edges, fill=True, color=colour(i), alpha=0.28, linewidth=0)
        axes.stairs(counts, edges, color=colour(i), linewidth=1.8, linestyle=("-", (0, (4, 1.5)))[i])
    if at is not None:
        axes.axvline(at.point.threshold, color=INK, linewidth=1.2, linestyle=(0, (5, 3)))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel("image score, higher is more abnormal", color=MUTED, fontsize=10)
    axes.set_ylabel("test images", color=MUTED, fontsize=10)
    names = [f"{word} ({len(values)})" for word, values in zip(("normal", "abnormal"), groups, strict=True)]
    title = "Scores"
    rows = [(x.name, plain(x.task), x.label, "; ".join(x.categories), x.score) for x in scores]
    numbers = sheet(("image", "task", "abnormal", "categories", "score"), rows)
    note = "upright line: threshold of the operating point" if at else ""
    return Chart(name, title, svg.inline(figure, name, title), numbers, svg.keys(names, ("━", "╍")), note)


def _line(
    axes: Axes, i: int, x: Sequence[float], y: Sequence[float], marked: Sequence[float], style: str = "default"
) -> None:
    """A curve with its series' marker at a few places, so that it can be told without colours."""
    axes.plot(x, y, color=colour(i), linewidth=1.8, clip_on=False, drawstyle=style)
    shown = [int(np.argmin(np.abs(np.asarray(x) - at))) for at in marked] if len(x) else []
    axes.plot(x, y, marker(i), color=colour(i), markersize=5, markevery=shown)


def _ring(axes: Axes, x: float, y: float) -> None:
    axes.plot(x, y, "o", color=INK, markersize=9, markerfacecolor="none", markeredgewidth=1.8, zorder=5, clip_on=False)


def _square(axes: Axes, across: str, up: str) -> None:
    ticks = np.linspace(0, 1, 6)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=ticks, yticks=ticks)
    axes.set_box_aspect(1)
    axes.set_xlabel(across, color=MUTED, fontsize=10)
    axes.set_ylabel(up, color=MUTED, fontsize=10)
