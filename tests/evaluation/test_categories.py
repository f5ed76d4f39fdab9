import math

import pytest

from fed_fsad.data.samples import Sample
from fed_fsad.errors import DataError
from fed_fsad.evaluation.bed import TestBed
from fed_fsad.evaluation.protocols import evaluate
from fed_fsad.evaluation.settings import EvaluationSettings
from tests.evaluation.fakes import KnownCategories, rows_of, sample

NAMES = ("blur", "cyst", "never")
SETTINGS = EvaluationSettings(shots=(1, 2), draws=2)
POOL = (
    *(sample(f"pn{i}") for i in range(3)),
    *(sample(f"pb{i}", "blur") for i in range(3)),
    *(sample(f"pc{i}", "cyst") for i in range(3)),
    *(sample(f"pd{i}", "drusen") for i in range(3)),
    sample("pbd", "blur", "drusen"),
)


def six(task: str = "brain", *more: float) -> tuple[Sample, ...]:
    """Two normal images, two of blur, one of cyst, one of both; "never" is in the sign list but in no image."""
    return (
        sample(f"{task}-n1", task=task, score=0.1, signs=(-2.0, -1.0, -3.0, *more)),
        sample(f"{task}-n2", task=task, score=0.6, signs=(1.0, -2.0, -3.0, *more)),
        sample(f"{task}-b1", "blur", task=task, score=0.9, signs=(3.0, -1.0, -3.0, *more)),
        sample(f"{task}-b2", "blur", task=task, score=0.5, signs=(0.0, 2.0, -3.0, *more)),
        sample(f"{task}-c1", "cyst", task=task, score=0.7, signs=(-1.0, 1.0, -3.0, *more)),
        sample(f"{task}-bc", "blur", "cyst", task=task, score=0.8, signs=(2.0, 0.5, -3.0, *more)),
    )


P1 = (5 / 6 + 1) / 2
P2 = (1 + 1 / 2) / 2
P3 = (8 / 9 + 3 / 4) / 2
MULTI_LABEL = {
    "map": pytest.approx((11 / 12 + 7 / 12) / 2),
    "macro_f1": pytest.approx((2 / 3 + 4 / 5) / 2),
    "micro_f1": pytest.approx(8 / 11),
    "hamming": pytest.approx(3 / 18),
    "exact_match": pytest.approx(4 / 6),
}


def test_protocols_on_six_images_with_an_empty_category() -> None:
    found = evaluate(KnownCategories(NAMES), rows_of, TestBed(POOL, six()), SETTINGS, 0)
    assert found.image_auroc == {
        "p1": pytest.approx(P1),
        "p2": pytest.approx(P2),
        "p3": pytest.approx(P3),
        "binary": pytest.approx(7 / 8),
    }
    assert found.left_out == {"p1": 1, "p2": 1, "p3": 1, "binary": 0}
    assert found.extra == MULTI_LABEL
    assert found.headline_key == "p1"
    assert found.headline == pytest.approx(P1)
    assert found.interval is not None
    assert found.interval[0] <= P1 <= found.interval[1]
    assert found.image_auroc_sd["p1"] == pytest.approx(0)
    assert found.summary()["left_out"] == 1


def test_a_single_category_has_nothing_to_be_told_from() -> None:
    test = tuple(one for one in six() if one.is_normal or one.categories == ("blur",))
    found = evaluate(KnownCategories(NAMES), rows_of, TestBed(POOL, test), SETTINGS, 0)
    assert math.isnan(found.image_auroc["p2"])
    assert found.left_out["p2"] == 3
    assert found.image_auroc["p1"] == pytest.approx(3 / 4)
    assert found.summary()["left_out_each"] == {"p1": 2, "p2": 3, "p3": 2, "binary": 0}


def test_unseen_categories_are_held_out_of_everything_but_binary() -> None:
    settings = SETTINGS.model_copy(update={"unseen_categories": ("drusen",)})
    # normal images score 0 on drusen; the two images with drusen score 1 and -1, and wildly on all else
    more = (
        sample("d1", "drusen", score=0.95, signs=(9.0, 9.0, 9.0, 1.0)),
        sample("d2", "blur", "drusen", score=0.05, signs=(-9.0, 9.0, 9.0, -1.0)),
    )
    method = KnownCategories((*NAMES, "drusen"))
    found = evaluate(method, rows_of, TestBed(POOL, six("brain", 0.0) + more), settings, 0)
    assert found.image_auroc == {
        "p1": pytest.approx(P1),
        "p2": pytest.approx(P2),
        "p3": pytest.approx(P3),
        "held_out": pytest.approx(1 / 2),
        "binary": pytest.approx(9 / 12),
    }
    assert found.extra == MULTI_LABEL
    assert found.left_out["held_out"] == 0
    assert len(method.supports) == 2
    for ids in method.supports:
        assert sorted(name[3:5] for name in ids) == ["pb", "pb", "pc", "pc", "pn", "pn"]
        assert "id-pbd" not in ids


def test_a_category_without_signs_is_left_out_and_never_called_present() -> None:
    test = tuple(sample(one.source.name, *one.categories, signs=s) for one, s in zip(six(), CYST_ONLY, strict=True))
    found = evaluate(KnownCategories(("cyst",)), rows_of, TestBed(POOL, test), SETTINGS, 0)
    assert found.image_auroc["p1"] == pytest.approx(1)
    assert found.left_out["p1"] == 1
    # blur is missed three times, cyst wrongly seen once: errors 4 of 12
    assert found.extra["hamming"] == pytest.approx(4 / 12)
    assert found.extra["macro_f1"] == pytest.approx((0 + 4 / 5) / 2)


CYST_ONLY = ((-1.0,), (-2.0,), (-1.0,), (2.0,), (1.0,), (0.5,))


def test_tasks_share_one_macro_mean_and_the_unseen_task_is_not_among_them() -> None:
    pool = (*POOL, *(sample(f"lp{i}", task="liver") for i in range(3)))
    wrong = (
        sample("ln", task="liver", signs=(5.0, 0.0, 0.0)),
        sample("lb", "blur", task="liver", signs=(1.0, 0.0, 0.0)),
    )
    bed = TestBed(pool, six() + wrong)
    both = evaluate(KnownCategories(NAMES), rows_of, bed, SETTINGS, 0)
    assert both.image_auroc["p1"] == pytest.approx((5 / 6 + 1 + 0) / 3)
    assert both.extra["exact_match"] == pytest.approx((4 + 1) / 8)
    alone = evaluate(KnownCategories(NAMES), rows_of, bed, SETTINGS.model_copy(update={"unseen_task": "liver"}), 0)
    assert alone.image_auroc["p1"] == pytest.approx(P1)


def test_only_normal_images_give_no_figures_and_no_crash() -> None:
    found = evaluate(KnownCategories(NAMES), rows_of, TestBed(POOL, six()[:2]), SETTINGS, 0)
    assert math.isnan(found.headline)
    assert found.interval is None
    assert found.left_out["p1"] == 3


def test_a_bed_of_the_unseen_task_alone_is_refused() -> None:
    settings = SETTINGS.model_copy(update={"unseen_task": "brain"})
    with pytest.raises(DataError, match="no test image shows a seen task"):
        evaluate(KnownCategories(NAMES), rows_of, TestBed(POOL, six()), settings, 0)


def test_a_category_score_that_is_no_number_is_refused() -> None:
    odd = sample("odd", "cyst", signs=(0.0, math.nan, 0.0))
    with pytest.raises(DataError, match="known gave test image odd"):
        evaluate(KnownCategories(NAMES), rows_of, TestBed(POOL, (*six(), odd)), SETTINGS, 0)
