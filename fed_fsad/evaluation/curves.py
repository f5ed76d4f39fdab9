"""ROC and precision-recall curves, and a threshold to operate at that no test image has a say in."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from fed_fsad.evaluation.bed import RowsOf, TestBed
from fed_fsad.evaluation.label_table import tabulate
from fed_fsad.evaluation.results import OperatingPoint, PrCurve, RocCurve
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.evaluation.trials import Trial, panel_of, run_trials
from fed_fsad.methods.method import Method
from fed_fsad.methods.threshold import conformal

POINTS = 200


@dataclass(frozen=True)
class Question:
    """Images of a task to tell apart: labels [N] and scores [N]; it has two classes, and every score is a number."""

    task: str
    label: str
    labels: NDArray[np.bool_]
    scores: NDArray[np.float64]

    @property
    def roc(self) -> RocCurve:
        """The ROC curve in at most 200 points; one that is dropped lies within 1/99 (fpr plus tpr) of one kept."""
        fpr, tpr, _ = roc_curve(self.labels, self.scores)
        keep = _spread(fpr + tpr)
        return RocCurve(self.task, self.label, tuple(map(float, fpr[keep])), tuple(map(float, tpr[keep])))

    @property
    def precision_recall(self) -> PrCurve:
        """The precision-recall curve in at most 200 points, as evenly along the threshold's way as the ROC curve's."""
        precision, recall, _ = precision_recall_curve(self.labels, self.scores)
        keep = _spread(
            np.cumsum(np.abs(np.diff(recall, prepend=recall[:1])) + np.abs(np.diff(precision, prepend=precision[:1])))
        )
        prevalence = float(self.labels.mean())
        return PrCurve(
            self.task, self.label, tuple(map(float, recall[keep])), tuple(map(float, precision[keep])), prevalence
        )


def questions(trials: Sequence[Trial], detect: bool, settings: EvaluationSettings) -> dict[str, Question]:
    """What the first draw's curves are of, by name: with `detect` by K, else "binary" and one per category against
    normal images, held-out categories too. What has one class only or no scores is left out.
    """
    several = len({trial.draw.task for trial in trials}) > 1
    found: dict[str, Question] = {}
    for trial in trials:
        for name, labels, scores in _by_shots(trial) if detect else _by_category(trial, settings):
            if labels.any() and not labels.all() and not np.isnan(scores).any():
                found[f"{trial.draw.task}, {name}" if several else name] = Question(
                    trial.draw.task, name, labels, scores
                )
    return found


def operating_point(
    method: Method, rows_of: RowsOf, bed: TestBed, trial: Trial, curve: str, share: float
) -> OperatingPoint | None:
    """The threshold that at least `share` of further normal images of the task stay at or below (ours).

    It is the conformal quantile of the pool's normal images that are no supports. None without any.
    """
    used = {sample.id for sample in trial.draw.support}
    normals = [x for x in bed.pool if x.task == trial.draw.task and x.is_normal and x.id not in used]
    if not normals:
        return None
    held = TestBed((), tuple(normals))
    scored = run_trials(panel_of(method), rows_of, held, [replace(trial.draw, maps=False)])[method.name][0]
    value, kept = conformal(scored.image.tolist(), share)
    return OperatingPoint(curve, value, kept, len(normals))


def _by_shots(trial: Trial) -> Iterator[tuple[str, NDArray[np.bool_], NDArray[np.float64]]]:
    yield str(trial.draw.shots), trial.labels, trial.image


def _by_category(
    trial: Trial, settings: EvaluationSettings
) -> Iterator[tuple[str, NDArray[np.bool_], NDArray[np.float64]]]:
    yield "binary", trial.labels, trial.image
    table = tabulate(trial, settings.unseen_categories)
    for protocol in ("p1", "held_out"):
        for column, row in zip(np.flatnonzero(table.asked(protocol)), table.labels(protocol), strict=True):
            yield table.names[column], row[row >= 0] == 1, table.scores[row >= 0, column]


def _spread(way: NDArray[np.float64]) -> NDArray[np.int64]:
    """At most 200 places, first and last among them, spread evenly over a rising [N]."""
    if way.size <= POINTS:
        return np.arange(way.size)
    return np.unique(np.searchsorted(way, np.linspace(way[0], way[-1], POINTS)).clip(max=way.size - 1))


def by_task(method: Method, trials: Sequence[Trial], names: Mapping[str, Question]) -> dict[str, str]:
    """The curve of each task that its image scores make: at the headline's K, or "binary"."""
    own = {trial.draw.task: str(trial.draw.shots) if method.protocol == "detection" else "binary" for trial in trials}
    named = {task: name if name in names else f"{task}, {name}" for task, name in own.items()}
    return {task: name for task, name in named.items() if name in names}
