"""The evaluation image by image, for a person: ROC curves, every score, a gallery, and the signs chosen."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from fed_fsad.evaluation.bed import RowsOf
from fed_fsad.evaluation.detection import headline_shots
from fed_fsad.evaluation.label_table import tabulate
from fed_fsad.evaluation.pixels import Masks
from fed_fsad.evaluation.results import ChosenSign, Details, GalleryItem, ImageScore, RocCurve
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.evaluation.trials import Trial
from fed_fsad.methods.method import Method, SupportBank

ROC_POINTS = 200


@runtime_checkable
class SelectsSigns(Protocol):
    """A method that chooses signs by the supports."""

    def selected_signs(self, bank: SupportBank) -> Mapping[str, Sequence[tuple[str, float, bool]]]:
        """By category, every sign with its reliability on the bank's images and whether it is kept."""


def describe(
    method: Method, rows_of: RowsOf, trials: Sequence[Trial], settings: EvaluationSettings, masks: Masks
) -> Details:
    """Details of the first support draw; scores and gallery at the headline's shots."""
    first = [trial for trial in trials if trial.draw.number == 0]
    detect = method.protocol == "detection"
    shown = [trial for trial in first if not detect or trial.draw.shots == headline_shots(settings)]
    return Details(
        roc=_by_shots(first) if detect else _by_category(first, settings),
        scores=tuple(score for trial in shown for score in image_scores(trial)),
        gallery=tuple(item for trial in shown for item in _gallery(trial, masks)),
        signs=_signs(method, rows_of, shown),
    )


def curve(labels: NDArray[np.bool_], scores: NDArray[np.float64]) -> RocCurve | None:
    """The ROC curve with at most 200 points, evenly spread along its length; None when a class is missing.

    A dropped point lies within 1/99 (fpr and tpr together) of one that is kept.
    """
    if labels.all() or not labels.any() or np.isnan(scores).any():
        return None
    fpr, tpr, _ = roc_curve(labels, scores)
    if fpr.size > ROC_POINTS:
        keep = np.unique(np.searchsorted(fpr + tpr, np.linspace(0, 2, ROC_POINTS)).clip(max=fpr.size - 1))
        fpr, tpr = fpr[keep], tpr[keep]
    return RocCurve(tuple(map(float, fpr)), tuple(map(float, tpr)))


def image_scores(trial: Trial) -> list[ImageScore]:
    """The image score of every test image, in order."""
    return [
        ImageScore(sample.source.name, sample.task, int(not sample.is_normal), sample.categories, float(score))
        for sample, score in zip(trial.samples, trial.image, strict=True)
    ]


def _by_shots(trials: Sequence[Trial]) -> dict[str, RocCurve]:
    several = len({trial.draw.task for trial in trials}) > 1
    named = {
        f"{trial.draw.task}, {trial.draw.shots}" if several else str(trial.draw.shots): curve(trial.labels, trial.image)
        for trial in trials
    }
    return {name: points for name, points in named.items() if points is not None}


def _by_category(trials: Sequence[Trial], settings: EvaluationSettings) -> dict[str, RocCurve]:
    """One-vs-normal curves, of held-out categories too."""
    several = len({trial.draw.task for trial in trials}) > 1
    curves: dict[str, RocCurve] = {}
    for trial in trials:
        table = tabulate(trial, settings.unseen_categories)
        for protocol in ("p1", "held_out"):
            columns = np.flatnonzero(table.asked(protocol))
            for column, row in zip(columns, table.labels(protocol), strict=True):
                points = curve(row[row >= 0] == 1, table.scores[row >= 0, column])
                if points is not None:
                    name = table.names[column]
                    curves[f"{trial.draw.task}, {name}" if several else name] = points
    return curves


def _gallery(trial: Trial, masks: Masks) -> list[GalleryItem]:
    """The best, median and worst scored abnormal image and the highest-scoring normal one; no image twice."""
    order = np.argsort(trial.image, kind="stable")
    abnormal, normal = order[trial.labels[order]], order[~trial.labels[order]]
    chosen: dict[int, str] = {}
    if abnormal.size:
        for kind, place in (("best", -1), ("worst", 0), ("median", abnormal.size // 2)):
            chosen.setdefault(int(abnormal[place]), kind)
    if normal.size:
        chosen[int(normal[-1])] = "false alarm"
    scores = image_scores(trial)
    return [
        GalleryItem(
            score=scores[i],
            kind=kind,
            image=trial.samples[i].source.image(masks.size),
            mask=masks.of(trial.samples[i]),
            map=None if trial.scores.map is None else trial.scores.map[i].float().numpy(),
        )
        for i, kind in chosen.items()
    ]


def _signs(method: Method, rows_of: RowsOf, trials: Sequence[Trial]) -> dict[str, dict[str, tuple[ChosenSign, ...]]]:
    if not isinstance(method, SelectsSigns):
        return {}
    chosen: dict[str, dict[str, tuple[ChosenSign, ...]]] = {}
    for trial in trials:
        bank = method.fit_support(rows_of(trial.draw.support), trial.draw.task)
        chosen[trial.draw.task] = {
            category: tuple(ChosenSign(*sign) for sign in signs)
            for category, signs in method.selected_signs(bank).items()
        }
    return chosen
