import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from fed_fsad.evaluation.metrics import (
    auroc,
    average_precision,
    best_dice,
    bootstrap_interval,
    bootstrap_macro,
    f1,
    macro,
    percentiles,
    pixel_auroc,
    sensitivity_at,
    spread,
)
from tests.reference.metrics import slow_auroc, slow_dice, slow_sensitivity

CASES = st.lists(st.tuples(st.booleans(), st.integers(-5, 5)), min_size=2, max_size=20).filter(
    lambda case: len({label for label, _ in case}) == 2
)


@given(CASES)
@settings(max_examples=60, deadline=None)
def test_auroc_counts_pairs_in_the_right_order(case: list[tuple[bool, int]]) -> None:
    labels, scores = zip(*case, strict=True)
    assert auroc(labels, scores) == pytest.approx(slow_auroc(labels, scores))


@given(st.lists(st.tuples(st.booleans(), st.floats(width=16, allow_nan=False)), min_size=2, max_size=60))
@settings(max_examples=100, deadline=None)
def test_f1_auroc_and_average_precision_are_scikit_learns_ties_and_infinities_included(
    case: list[tuple[bool, float]],
) -> None:
    labels, scores = map(np.array, zip(*case, strict=True))
    if labels.any():
        assert f1(labels, scores > 0) == pytest.approx(f1_score(labels, scores > 0, zero_division=0.0))
    if labels.any() and not labels.all():
        finite = np.nan_to_num(scores, posinf=1e6, neginf=-1e6)  # scikit-learn refuses what is not finite
        assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, finite), abs=1e-12)
        assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, finite), abs=1e-12)


@given(CASES)
@settings(max_examples=60, deadline=None)
def test_auroc_knows_ranks_only(case: list[tuple[bool, int]]) -> None:
    labels, scores = map(np.array, zip(*case, strict=True))
    area = auroc(labels, scores)
    order = np.random.default_rng(len(case)).permutation(len(case))
    assert auroc(labels, np.exp(scores)) == pytest.approx(area)
    assert auroc(labels, -scores) == pytest.approx(1 - area)
    assert auroc(~labels, scores) == pytest.approx(1 - area)
    assert auroc(labels[order], scores[order]) == pytest.approx(area)


@given(CASES, st.sampled_from([0.5, 0.9, 0.95, 1.0]))
@settings(max_examples=60, deadline=None)
def test_sensitivity_is_the_best_of_all_thresholds_that_pass_enough_normals(
    case: list[tuple[bool, int]], specificity: float
) -> None:
    labels, scores = zip(*case, strict=True)
    assert sensitivity_at(labels, scores, specificity) == pytest.approx(slow_sensitivity(labels, scores, specificity))


def test_sensitivity_at_95_percent_of_twenty_normals_lets_one_through() -> None:
    labels, scores = [0] * 20 + [1] * 2, [*range(20), 18.5, 17.5]
    assert sensitivity_at(labels, scores) == 0.5


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_best_dice_is_the_best_of_all_thresholds(seed: int) -> None:
    stream = np.random.default_rng(seed)
    masks = stream.random((2, 3, 4)) < 0.3
    masks[0, 0] = [True, False, False, False]
    maps = stream.integers(0, 5, masks.shape).astype(np.float32)
    assert best_dice(masks, maps) == pytest.approx(slow_dice(masks, maps))


def test_no_dice_without_an_abnormal_pixel_or_without_a_normal_one() -> None:
    maps = np.ones((1, 2, 2), dtype=np.float32)
    assert math.isnan(best_dice(np.zeros((1, 2, 2), dtype=bool), maps))
    assert math.isnan(best_dice(np.ones((1, 2, 2), dtype=bool), maps))


def test_average_precision_by_hand() -> None:
    # ranks 1 and 3 are positive: (1/1 + 2/3) / 2
    assert average_precision([1, 0, 1, 0], [4, 3, 2, 1]) == pytest.approx(5 / 6)


@pytest.mark.parametrize("figure", [auroc, average_precision, sensitivity_at])
@pytest.mark.parametrize(("labels", "scores"), [([1, 1], [1, 2]), ([0, 0], [1, 2]), ([0, 1], [1, math.nan])])
def test_one_class_or_no_score_has_no_figure(figure: object, labels: list[int], scores: list[float]) -> None:
    assert callable(figure)
    assert math.isnan(figure(labels, scores))


def test_pixel_auroc_takes_all_pixels_together() -> None:
    masks = np.array([[[True, False]], [[False, False]]])
    maps = np.array([[[0.5, 0.1]], [[0.9, 0.2]]], dtype=np.float32)
    assert pixel_auroc(masks, maps) == pytest.approx(2 / 3)
    assert math.isnan(pixel_auroc(masks[1:], maps[1:]))


@pytest.mark.parametrize("levels", [3, 1000])
def test_pixel_auroc_is_scikit_learns_ties_included(levels: int) -> None:
    stream = np.random.default_rng(levels)
    masks = stream.random((4, 9, 9)) > 0.7
    maps = (masks * levels // 3 + stream.integers(levels, size=masks.shape)).astype(np.float32)
    assert pixel_auroc(masks, maps) == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12)


def test_f1_by_hand() -> None:
    assert f1([1, 1, 0, 0], [1, 0, 1, 0]) == pytest.approx(0.5)
    assert f1([1, 0], [0, 0]) == 0
    assert math.isnan(f1([0, 0], [1, 0]))


def test_macro_leaves_the_undefined_out_and_counts_them() -> None:
    assert macro([0.5, math.nan, 0.7]) == pytest.approx((0.6, 1))
    mean, left_out = macro([math.nan])
    assert math.isnan(mean)
    assert left_out == 1


def test_spread_is_the_sample_deviation_and_one_draw_has_none() -> None:
    assert spread([0.6, 0.8]) == pytest.approx((0.7, math.sqrt(0.02)))
    mean, deviation = spread([0.6])
    assert mean == 0.6
    assert math.isnan(deviation)


def noisy(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    stream = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return labels, labels + stream.normal(size=n)


def test_bootstrap_agrees_with_resampling_by_hand() -> None:
    labels, scores = noisy(80)
    stream = np.random.default_rng(1)
    positive, negative = scores[labels == 1], scores[labels == 0]
    areas = [
        roc_auc_score(
            labels[np.argsort(-labels, kind="stable")],
            np.append(stream.choice(positive, 40), stream.choice(negative, 40)),
        )
        for _ in range(1500)
    ]
    assert bootstrap_interval(labels, scores, 3) == pytest.approx(np.percentile(areas, [2.5, 97.5]), abs=0.015)


def test_bootstrap_holds_the_estimate_narrows_with_more_images_and_repeats() -> None:
    widths = []
    for n in (20, 200):
        labels, scores = noisy(n)
        interval = bootstrap_interval(labels, scores, 3)
        assert interval is not None
        assert interval[0] < auroc(labels, scores) < interval[1]
        assert interval == bootstrap_interval(labels, scores, 3)
        widths.append(interval[1] - interval[0])
    assert widths[1] < widths[0] / 2
    assert interval != bootstrap_interval(labels, scores, 4)


def test_bootstrap_never_loses_a_class() -> None:
    assert bootstrap_interval([1, 0, 0, 0], [5, 1, 2, 3], 0) == (1.0, 1.0)
    assert bootstrap_interval([1, 1], [1, 2], 0) is None
    assert bootstrap_interval([1, 1, 0], [2, 2, 2], 0) == (0.5, 0.5)


def test_bootstrap_macro_averages_comparisons_and_skips_what_cannot_be_compared() -> None:
    labels = np.array([[1, 1, 0, 0, -1], [-1, -1, 0, 0, 1], [0, 0, 0, 0, 0]], dtype=np.int8)
    right, wrong = [3.0, 4, 1, 2, math.inf], [0.0, 0, 1, 2, -1]
    assert percentiles(bootstrap_macro([(labels, np.array([[right, wrong, right]]))], 0)) == (0.5, 0.5)
    # two draws, the second of which has the first category wrong as well
    flipped = [1.0, 2, 3, 4, 0]
    assert percentiles(bootstrap_macro([(labels[:1], np.array([[right], [flipped]]))], 0)) == (0.5, 0.5)
    untold = [math.nan] * 5
    assert percentiles(bootstrap_macro([(labels[:2], np.array([[right, untold]]))], 0)) == (1.0, 1.0)


def test_detectors_are_resampled_alike_whatever_categories_they_know() -> None:
    """A category that no image shows splits no stratum, so it must not change which images are drawn."""
    labels = np.array([[0, 0, 0, 1, 1, -1, -1], [0, 0, 0, -1, 1, 1, 1]], dtype=np.int8)
    scores = np.random.default_rng(0).normal(size=(2, 2, 7))
    absent = np.array([[0, 0, 0, -1, -1, -1, -1]], dtype=np.int8)
    plain = bootstrap_macro([(labels, scores)], 5)
    more = bootstrap_macro([(np.vstack([absent, labels]), np.concatenate([np.zeros((2, 1, 7)), scores], axis=1))], 5)
    assert plain is not None
    assert plain == more
    assert plain == bootstrap_macro([(labels, scores)], 5)
    assert plain != bootstrap_macro([(labels, scores)], 6)
