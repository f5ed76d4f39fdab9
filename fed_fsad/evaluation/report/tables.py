"""Tables of figures: what was measured, what a threshold does, who is taken for whom."""

from fed_fsad.evaluation.report.load import Run
from fed_fsad.evaluation.report.operating import Rate, callings, operations
from fed_fsad.evaluation.report.records import MethodSummary
from fed_fsad.evaluation.report.table import Cell, Table, table
from fed_fsad.evaluation.report.words import (
    EXTRA,
    figure_title,
    method_title,
    percent,
    plain,
    score,
)


def figures(run: Run) -> list[Table]:
    """Every detection figure, with the spread over support draws; a table per method."""
    summed = sorted(run.summary.methods.items()) if run.summary else ()
    return [shown for i, (method, found) in enumerate(summed) if (shown := _figures(i, method, found)) is not None]


def _figures(place: int, method: str, found: MethodSummary) -> Table | None:
    measured = {f"image AUROC, {figure_title(key)}": (value, found.image_auroc_sd.get(key))
                for key, value in found.image_auroc.items()}  # fmt: skip
    others = {"average precision": found.average_precision, "sensitivity at 95 % specificity": found.sensitivity_95,
              "pixel AUROC": found.pixel_auroc, "pixel AUPRO": found.pixel_aupro,
              "best-threshold Dice": found.pixel_dice}  # fmt: skip
    others |= {EXTRA.get(key, plain(key)): value for key, value in found.extra.items()}
    measured |= {what: (value, None) for what, value in others.items() if value is not None}
    rows = [
        [Cell(what), Cell(score(value), value), Cell(score(spread) if spread is not None else "", spread)]
        for what, (value, spread) in measured.items()
    ]
    columns = ("figure", "mean", "sd over draws")
    return table(f"figures-{place}", f"{method_title(method)}: every figure", columns, rows)


def operating(run: Run) -> Table | None:
    """The confusion table of every method and task at its operating point."""
    rows = [
        [
            Cell(method_title(method)), Cell(plain(x.task), x.task),
            Cell(f"{x.point.threshold:.4g}".replace("-", "−"), x.point.threshold,
                 f"{x.point.normals}: {percent(x.point.specificity)}"),
            Cell(str(x.true_positives), x.true_positives), Cell(str(x.false_negatives), x.false_negatives),
            Cell(str(x.false_positives), x.false_positives), Cell(str(x.true_negatives), x.true_negatives),
            *(_rate(rate) for rate in (x.sensitivity, x.specificity, x.positive_predictive, x.negative_predictive)),
        ]
        for method, details in run.details.items()
        for x in operations(details)
    ]  # fmt: skip
    columns = (
        "method", "task", "threshold", "true positive", "false negative", "false positive", "true negative",
        "sensitivity", "specificity", "PPV", "NPV",
    )  # fmt: skip
    return table("operating", "The test images at the operating point", columns, rows, 2)


def calling(run: Run) -> Table | None:
    """What each category's own threshold does to the test images."""
    rows = [
        [
            Cell(method_title(method)), Cell(plain(x.task), x.task), Cell(plain(x.category), x.category),
            Cell(f"{x.threshold:.3g}".replace("-", "−"), x.threshold),
            Cell(str(x.found.of), x.found.of), _rate(x.found), _rate(x.passed),
        ]
        for method, details in run.details.items()
        for x in callings(details)
    ]  # fmt: skip
    columns = (
        "method",
        "task",
        "category",
        "threshold",
        "images that show it",
        "called, of those",
        "not called, of others",
    )
    return table("calling", "Each category at its threshold", columns, rows, 3)


def _rate(rate: Rate) -> Cell:
    ends = rate.interval
    note = "" if ends is None else f"{percent(ends[0])} to {percent(ends[1])}".replace("\u00a0% to", " to")
    return Cell(percent(rate.value), rate.value, note)


def skipped(run: Run) -> Table | None:
    """Images that could not be read."""
    found = run.summary.skipped_images if run.summary else run.skipped
    rows = [[Cell(image.name), Cell(image.reason)] for image in found]
    return table("skipped", f"Images left out ({len(rows)})", ("image", "reason"), rows, 2)


def tested(run: Run) -> Table | None:
    """The server's own test images, by method and task: the same for every detector beside it."""
    rows = []
    for method, details in run.details.items():
        for task in details.tasks:
            labels = [bool(x.label) for x in details.scores if x.task == task]
            counts = (len(labels), labels.count(False), labels.count(True))
            rows.append([Cell(method_title(method)), Cell(plain(task), task), *(Cell(str(n), n) for n in counts)])
    columns = ("method", "task", "test images", "normal", "abnormal")
    return table("tested", "What the server tested on", columns, rows, 2)
