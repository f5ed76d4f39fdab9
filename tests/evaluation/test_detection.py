import math
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from fed_fsad.data.features import Rows
from fed_fsad.data.samples import Sample
from fed_fsad.errors import DataError
from fed_fsad.evaluation import detection, trials
from fed_fsad.evaluation.bed import TestBed, draw_support
from fed_fsad.evaluation.protocols import evaluate
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.methods.method import Scores
from tests.evaluation.fakes import SIZE, KnownScores, NearestValue, rows_of, sample, source_of
from tests.reference.metrics import slow_aupro, slow_auroc

SETTINGS = EvaluationSettings(shots=(2, 4), draws=3)
BRAIN = tuple(sample(f"bp{i}", value=i / 10) for i in range(8))
LIVER = tuple(sample(f"lp{i}", task="liver", value=i / 20) for i in range(8))


def six(task: str = "brain", lesion: int | None = 2) -> tuple[Sample, ...]:
    """Three normal and three abnormal images; 8 of the 9 pairs are in the right order."""
    normal = [sample(f"{task}-n{i}", task=task, score=s) for i, s in enumerate((0.1, 0.2, 0.5))]
    abnormal = [
        sample(f"{task}-a{i}", "spot", task=task, score=s, lesion=lesion) for i, s in enumerate((0.4, 0.7, 0.9))
    ]
    return (*normal, *abnormal)


def test_six_images_by_hand() -> None:
    found = evaluate(KnownScores(), rows_of, TestBed(BRAIN, six()), SETTINGS, 0)
    assert found.image_auroc == {"2": pytest.approx(8 / 9), "4": pytest.approx(8 / 9)}
    assert found.image_auroc_sd == {"2": pytest.approx(0), "4": pytest.approx(0)}
    # ranks 1, 2 and 4 of the sorted list are abnormal
    assert found.average_precision == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert (found.headline_key, found.headline) == ("4", found.image_auroc["4"])
    assert found.interval is not None
    assert found.interval[0] <= found.headline <= found.interval[1]
    assert found.pixel_auroc is None
    assert found.details is None
    assert found.summary()["image_auroc"] == found.image_auroc


@pytest.mark.parametrize(("shots", "key"), [((2, 4, 8), "4"), ((3, 4), "4"), ((1, 5, 4), "5"), ((1, 2), "2")])
def test_the_headline_is_the_first_k_of_at_least_four_else_the_last(shots: tuple[int, ...], key: str) -> None:
    settings = EvaluationSettings(shots=shots, draws=1)
    assert evaluate(KnownScores(), rows_of, TestBed(BRAIN, six()), settings, 0).headline_key == key


def test_mean_and_deviation_are_over_draws_of_the_mean_over_tasks() -> None:
    stream = np.random.default_rng(0)
    test = tuple(
        sample(f"{task}{i}", *(["spot"] if i % 2 else []), task=task, value=float(stream.random() + 0.3 * (i % 2)))
        for task in ("brain", "liver")
        for i in range(12)
    )
    found = evaluate(NearestValue(), rows_of, TestBed(BRAIN + LIVER, test), SETTINGS, 5)
    for shots in SETTINGS.shots:
        per_draw = []
        for draw in range(3):
            areas, precisions = [], []
            for task in ("brain", "liver"):
                support = [source_of(one).value for one in draw_support(BRAIN + LIVER, task, shots, draw, 5, False)]
                mine = [one for one in test if one.task == task]
                scores = [min(abs(source_of(one).value - s) for s in support) for one in mine]
                labels = [not one.is_normal for one in mine]
                areas.append(roc_auc_score(labels, scores))
                precisions.append(average_precision_score(labels, scores))
            per_draw.append(np.mean(areas))
        assert found.image_auroc[str(shots)] == pytest.approx(np.mean(per_draw))
        assert found.image_auroc_sd[str(shots)] == pytest.approx(np.std(per_draw, ddof=1))
    assert found.image_auroc_sd["2"] > 0


def test_the_unseen_task_alone_is_tested() -> None:
    easy = tuple(sample(f"l{i}", *(["spot"] if i else []), task="liver", score=float(i)) for i in range(3))
    bed = TestBed(BRAIN + LIVER, six() + easy)
    settings = SETTINGS.model_copy(update={"unseen_task": "liver"})
    method = KnownScores()
    assert evaluate(method, rows_of, bed, settings, 0).image_auroc["4"] == 1.0
    assert all(name.startswith("id-lp") for ids in method.supports for name in ids)
    with pytest.raises(DataError, match="unseen_task 'lung' has no test image; add some, or name one of brain, liver"):
        evaluate(method, rows_of, bed, settings.model_copy(update={"unseen_task": "lung"}), 0)


def test_pixel_figures_leave_unmarked_images_out() -> None:
    bed = TestBed(BRAIN, (*six(), sample("unmarked", "spot", score=9.0, lesion=None)))
    found = evaluate(KnownScores(maps=True), rows_of, bed, SETTINGS, 0)
    marked = six()
    masks = np.stack([mask for one in marked if (mask := one.source.mask(SIZE)) is not None])
    maps = rows_of(marked).features["map"].numpy()
    assert found.pixel_auroc == pytest.approx(slow_auroc(masks.ravel().tolist(), maps.ravel().tolist()))
    assert found.pixel_aupro == pytest.approx(slow_aupro(masks, maps, 0.3), abs=1e-4)


def test_no_pixel_figures_where_no_abnormal_pixel_is_marked() -> None:
    found = evaluate(KnownScores(maps=True), rows_of, TestBed(BRAIN, six(lesion=None)), SETTINGS, 0)
    assert (found.pixel_auroc, found.pixel_aupro) == (None, None)


def test_a_task_without_abnormal_images_is_left_out_and_counted() -> None:
    calm = (sample("calm", task="liver"),)
    found = evaluate(KnownScores(), rows_of, TestBed(BRAIN + LIVER, six() + calm), SETTINGS, 0)
    assert found.image_auroc["4"] == pytest.approx(8 / 9)
    assert found.left_out == {"2": 1, "4": 1}
    only = evaluate(KnownScores(), rows_of, TestBed(LIVER, calm), SETTINGS, 0)
    assert math.isnan(only.headline)
    assert only.interval is None
    assert only.summary()["headline"] is None
    assert only.summary()["image_auroc"] == {"2": None, "4": None}


def test_maps_are_kept_at_the_headline_only() -> None:
    bed = TestBed(BRAIN, six())

    def panel(supports: Sequence[Rows], task: str) -> trials.Judge:
        return lambda queries: [{"one": Scores(queries.features["score"], queries.features["map"])} for _ in supports]

    found = trials.run_trials(panel, rows_of, bed, detection.plan(bed, SETTINGS, 0))["one"]
    assert {(trial.draw.shots, trial.scores.map is not None) for trial in found} == {(2, False), (4, True)}


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_the_chunk_size_changes_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bed = TestBed(BRAIN, six())
    whole = evaluate(KnownScores(maps=True), rows_of, bed, SETTINGS, 0)
    monkeypatch.setattr(trials, "CHUNK", chunk)
    assert evaluate(KnownScores(maps=True), rows_of, bed, SETTINGS, 0) == whole


def test_features_are_asked_for_once_per_chunk_and_support(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "CHUNK", 4)
    asked: list[int] = []

    def counting(samples: Sequence[Sample]) -> Rows:
        asked.append(len(samples))
        return rows_of(samples)

    evaluate(KnownScores(), counting, TestBed(BRAIN, six()), SETTINGS, 0)
    assert sorted(asked) == [2, 2, 2, 2, 4, 4, 4, 4]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("maps", [False, True])
def test_a_score_that_is_no_number_names_method_image_and_remedy(bad: float, maps: bool) -> None:
    bed = TestBed(BRAIN, (*six(), sample("odd", score=bad)))
    with pytest.raises(DataError, match="known gave test image odd a score that is not a finite number; lower"):
        evaluate(KnownScores(maps=maps), rows_of, bed, SETTINGS, 0)
