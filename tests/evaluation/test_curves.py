import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_curve

from fed_fsad.data.samples import Sample
from fed_fsad.evaluation.bed import TestBed
from fed_fsad.evaluation.curves import POINTS, Question
from fed_fsad.evaluation.protocols import evaluate
from fed_fsad.evaluation.results import Details
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.methods.method import Method
from tests.evaluation.fakes import KnownScores, WithSigns, rows_of, sample

SETTINGS = EvaluationSettings(shots=(2, 4), draws=2)
TEST = (
    *(sample(f"n{i}", score=i / 10) for i in range(4)),
    *(sample(f"a{i}", "spot", score=0.25 + i / 10) for i in range(5)),
)


def pool(count: int, task: str = "brain") -> tuple[Sample, ...]:
    """Normals that score 0, 1, 2, ... and abnormal ones that score far more."""
    normals = tuple(sample(f"{task}-p{i}", task=task, score=float(i), signs=(0.0, 0.0)) for i in range(count))
    return (*normals, *(sample(f"{task}-q{i}", "spot", task=task, score=1e3, signs=(9.0, 9.0)) for i in range(3)))


def details_of(method: Method, bed: TestBed, settings: EvaluationSettings = SETTINGS) -> Details:
    found = evaluate(method, rows_of, bed, settings, 0, details=True)
    assert found.details is not None
    return found.details


def noisy(n: int) -> Question:
    stream = np.random.default_rng(0)
    labels = stream.random(n) > 0.5
    return Question("brain", "4", labels, labels + stream.normal(size=n))


def test_a_long_roc_curve_is_thinned_without_moving() -> None:
    question = noisy(6000)
    thin = question.roc
    assert 100 < len(thin.fpr) <= POINTS
    assert (thin.fpr[0], thin.tpr[0], thin.fpr[-1], thin.tpr[-1]) == (0, 0, 1, 1)
    fpr, tpr, _ = roc_curve(question.labels, question.scores)
    assert np.abs(np.interp(fpr, thin.fpr, thin.tpr) - tpr).max() < 0.02
    assert np.trapezoid(thin.tpr, thin.fpr) == pytest.approx(np.trapezoid(tpr, fpr), abs=1e-3)


@pytest.mark.parametrize("n", [30, 6000])
def test_the_precision_recall_curve_keeps_the_average_precision_and_ends_at_the_prevalence(n: int) -> None:
    question = noisy(n)
    thin = question.precision_recall
    assert len(thin.recall) <= POINTS
    assert (np.diff(thin.recall) <= 0).all()
    assert thin.recall[0] == 1.0
    assert thin.precision[0] == pytest.approx(question.labels.mean())
    assert (thin.recall[-1], thin.precision[-1]) == (0.0, 1.0)
    assert thin.prevalence == pytest.approx(question.labels.mean())
    area = -np.sum(np.diff(thin.recall) * np.array(thin.precision)[:-1])
    assert area == pytest.approx(average_precision_score(question.labels, question.scores), abs=0.01)


def test_curves_per_k_and_per_task_and_category() -> None:
    assert set(details_of(KnownScores(), TestBed(pool(5), TEST)).roc) == {"2", "4"}
    liver = tuple(sample(f"l{i}", *(["spot"] if i > 4 else []), task="liver", score=float(i)) for i in range(9))
    told = details_of(KnownScores(), TestBed(pool(5) + liver[:4], TEST + liver[4:]))
    assert set(told.roc) == set(told.precision_recall) == {"brain, 2", "brain, 4", "liver, 2", "liver, 4"}
    assert (told.roc["liver, 4"].task, told.roc["liver, 4"].label) == ("liver", "4")
    settings = SETTINGS.model_copy(update={"unseen_categories": ("rare",)})
    test = (sample("n", signs=(0.0, 1.0)), sample("s", "spot", signs=(1.0, 0.0)), sample("r", "rare", signs=(1.0, 0.0)))
    known = details_of(WithSigns(("spot", "rare")), TestBed(pool(5), test), settings)
    assert set(known.roc) == {"binary", "spot", "rare"}
    assert known.roc["spot"].tpr[1] == 1.0
    assert known.roc["rare"].fpr[1] == 1.0
    assert known.signs["brain"]["spot"][0].sign == "spot rim"


def test_what_has_one_class_only_has_no_curve_and_no_operating_point() -> None:
    only = details_of(KnownScores(), TestBed(pool(5), TEST[:4]))
    assert not only.roc
    assert not only.operating


def test_the_operating_point_comes_from_normal_images_that_are_no_supports() -> None:
    """4 of 23 normals are supports; of the other 19 the 18th lowest (0.9 of 20) is the threshold."""
    method = KnownScores()
    found = details_of(method, TestBed(pool(23), TEST))
    point = found.operating["brain"]
    drawn = next(ids for ids in method.supports if len(ids) == 4)
    left = sorted(i for i in range(23) if f"id-brain-p{i}" not in drawn)
    assert (point.curve, point.normals) == ("4", 19)
    assert point.specificity == pytest.approx(0.9)
    assert point.threshold == left[17]


def test_test_images_have_no_say_in_the_threshold() -> None:
    one = details_of(KnownScores(), TestBed(pool(23), TEST)).operating
    louder = tuple(sample(f"x{i}", *(["spot"] if i % 2 else []), score=50.0 + i) for i in range(8))
    assert details_of(KnownScores(), TestBed(pool(23), louder)).operating == one


def test_too_few_normals_promise_less_and_none_promise_nothing() -> None:
    few = details_of(KnownScores(), TestBed(pool(7), TEST)).operating["brain"]
    assert few.normals == 3
    assert few.specificity == pytest.approx(3 / 4)
    assert not details_of(KnownScores(), TestBed(pool(4), TEST)).operating


def test_every_task_has_a_threshold_of_its_own_and_categories_use_the_image_score() -> None:
    settings = SETTINGS.model_copy(update={"operating_specificity": 0.5})
    test = tuple(sample(f"{t}{k}", *k, task=t, signs=(0.0, 1.0)) for t in ("brain", "liver") for k in ((), ("spot",)))
    found = details_of(WithSigns(("spot", "rim")), TestBed(pool(9) + pool(30, "liver"), test), settings)
    assert {task: (point.curve, point.normals) for task, point in found.operating.items()} == {
        "brain": ("brain, binary", 5),
        "liver": ("liver, binary", 26),
    }
    assert found.operating["liver"].threshold > found.operating["brain"].threshold


@given(st.integers(1, 60), st.floats(0.05, 0.95))
@settings(max_examples=30, deadline=None)
def test_the_promised_specificity_holds_on_average(count: int, share: float) -> None:
    """Leave each of n + 1 normals out in turn: the share of them at or below the others' threshold is the promise."""
    chosen = SETTINGS.model_copy(update={"shots": (2,), "operating_specificity": share})
    bed = TestBed(pool(count + 2), TEST)
    point = details_of(KnownScores(), bed, chosen).operating["brain"]
    place = round(point.specificity * (count + 1))
    scores = np.random.default_rng(count).normal(size=count + 1)
    below = [scores[i] <= np.sort(np.delete(scores, i))[place - 1] for i in range(count + 1)]
    assert np.mean(below) == pytest.approx(point.specificity)
    assert point.specificity >= share or place == count
