"""The evaluation image by image, for a person: curves, every score, a gallery, and the signs chosen."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from fed_fsad.data.features import Features
from fed_fsad.evaluation.bed import RowsOf, TestBed
from fed_fsad.evaluation.curves import by_task, operating_point, questions
from fed_fsad.evaluation.detection import headline_shots
from fed_fsad.evaluation.pixels import Masks
from fed_fsad.evaluation.results import ChosenSign, Details, Evidence, GalleryItem, ImageScore
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.evaluation.trials import Trial
from fed_fsad.methods.method import Method, Scores, SupportBank


@runtime_checkable
class ReadsSigns(Protocol):
    """A method that recognises categories by signs, chooses them by the supports, and can say which ones spoke."""

    def selected_signs(self, bank: SupportBank) -> Mapping[str, Sequence[tuple[str, float, bool]]]:
        """By category, every sign with its reliability on the bank's images and whether it is kept."""

    def sign_evidence(self, features: Features, bank: SupportBank) -> Sequence[Mapping[str, Mapping[str, float]]]:
        """Per image and category, what each sign that counted gave; their mean is the image's category score, less what
        the method takes from elsewhere.
        """


@runtime_checkable
class TellsProbabilities(Protocol):
    """A method that turns its scores into probabilities and decisions by the supports alone."""

    def probabilities(self, scores: Scores, bank: SupportBank) -> Tensor:
        """[B, M], of scores that the bank gave."""

    def thresholds(self, bank: SupportBank) -> Tensor:
        """[M], the scores above which a category is called present."""


def describe(
    method: Method, rows_of: RowsOf, bed: TestBed, trials: Sequence[Trial], settings: EvaluationSettings, masks: Masks
) -> Details:
    """Details of the first support draw; scores, operating points and gallery at the headline's shots."""
    first = [trial for trial in trials if trial.draw.number == 0]
    detect = method.protocol == "detection"
    shown = [trial for trial in first if not detect or trial.draw.shots == headline_shots(settings)]
    asked = questions(first, detect, settings)
    curves = by_task(method, shown, asked)
    points = {
        trial.draw.task: operating_point(
            method, rows_of, bed, trial, curves[trial.draw.task], settings.operating_specificity
        )
        for trial in shown
        if trial.draw.task in curves
    }
    return Details(
        roc={name: question.roc for name, question in asked.items()},
        precision_recall={name: question.precision_recall for name, question in asked.items()},
        operating={task: point for task, point in points.items() if point is not None},
        scores=tuple(score for trial in shown for score in image_scores(trial)),
        gallery=tuple(item for trial in shown for item in _gallery(method, rows_of, trial, masks)),
        signs=_signs(method, rows_of, shown),
        thresholds=_thresholds(method, rows_of, shown),
    )


def image_scores(trial: Trial) -> list[ImageScore]:
    """The scores of every test image, in order."""
    given = trial.scores.categories
    by_category = [{}] * len(trial.samples) if given is None else [_named(trial.scores.names, row) for row in given]
    return [
        ImageScore(sample.source.name, sample.task, int(not sample.is_normal), sample.categories, float(score), named)
        for sample, score, named in zip(trial.samples, trial.image, by_category, strict=True)
    ]


def _named(names: Sequence[str], row: Sequence[float]) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, row, strict=True)}


def _gallery(method: Method, rows_of: RowsOf, trial: Trial, masks: Masks) -> list[GalleryItem]:
    scores = image_scores(trial)
    chosen = _chosen(trial)
    evidence = _evidence(method, rows_of, trial, scores, list(chosen))
    return [
        GalleryItem(
            score=scores[i],
            kind=kind,
            image=trial.samples[i].source.image(masks.size),
            mask=masks.of(trial.samples[i]),
            map=None if trial.scores.map is None else trial.scores.map[i].float().numpy(),
            evidence=why,
        )
        for (i, kind), why in zip(chosen.items(), evidence, strict=True)
    ]


def _chosen(trial: Trial) -> dict[int, str]:
    """The best, median and worst scored abnormal image and the highest-scoring normal one; no image twice."""
    order = np.argsort(trial.image, kind="stable")
    abnormal, normal = order[trial.labels[order]], order[~trial.labels[order]]
    chosen: dict[int, str] = {}
    if abnormal.size:
        for kind, place in (("best", -1), ("median", abnormal.size // 2), ("worst", 0)):
            chosen.setdefault(int(abnormal[place]), kind)
    if normal.size:
        chosen[int(normal[-1])] = "false alarm"
    return chosen


def _evidence(
    method: Method, rows_of: RowsOf, trial: Trial, scores: Sequence[ImageScore], places: Sequence[int]
) -> list[tuple[Evidence, ...]]:
    """Per image at `places`: the category with the highest score, then those it shows."""
    if not isinstance(method, ReadsSigns) or not places:
        return [()] * len(places)
    bank = method.fit_support(rows_of(trial.draw.support), trial.draw.task)
    chance = _probabilities(method, bank, trial.scores)
    read = method.sign_evidence(rows_of([trial.samples[i] for i in places]).features, bank)
    found = []
    for i, spoken in zip(places, read, strict=True):
        named = scores[i].category_scores
        asked = [max(named, key=lambda name: named[name])] if named else []
        asked += [name for name in scores[i].categories if name in spoken]
        found.append(tuple(_why(x, named[x], spoken[x], chance, i) for x in dict.fromkeys(asked)))
    return found


def _why(
    category: str, score: float, spoken: Mapping[str, float], chance: Mapping[str, Sequence[float]], place: int
) -> Evidence:
    mean = float(np.mean(list(spoken.values()))) if spoken else 0.0
    probability = chance[category][place] if category in chance else None
    return Evidence(category, score, tuple(spoken.items()), score - mean, probability)


def _probabilities(method: Method, bank: SupportBank, scores: Scores) -> dict[str, list[float]]:
    """By category, of every image; empty where the method tells none."""
    if not isinstance(method, TellsProbabilities):
        return {}
    return dict(zip(scores.names, method.probabilities(scores, bank).T.tolist(), strict=True))


def _thresholds(method: Method, rows_of: RowsOf, trials: Sequence[Trial]) -> dict[str, dict[str, float]]:
    if not isinstance(method, TellsProbabilities):
        return {}
    banks = ((trial, method.fit_support(rows_of(trial.draw.support), trial.draw.task)) for trial in trials)
    return {
        trial.draw.task: dict(zip(trial.scores.names, method.thresholds(bank).tolist(), strict=True))
        for trial, bank in banks
    }


def _signs(method: Method, rows_of: RowsOf, trials: Sequence[Trial]) -> dict[str, dict[str, tuple[ChosenSign, ...]]]:
    if not isinstance(method, ReadsSigns):
        return {}
    chosen: dict[str, dict[str, tuple[ChosenSign, ...]]] = {}
    for trial in trials:
        bank = method.fit_support(rows_of(trial.draw.support), trial.draw.task)
        chosen[trial.draw.task] = {
            category: tuple(ChosenSign(*sign) for sign in signs)
            for category, signs in method.selected_signs(bank).items()
        }
    return chosen
