import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fed_fsad.evaluation.aupro import aupro
from tests.reference.metrics import slow_aupro

SHAPE = (2, 5, 5)


@given(arrays(bool, SHAPE), arrays(np.float32, SHAPE, elements=st.integers(0, 6).map(float)))
@settings(max_examples=40, deadline=None)
def test_agrees_with_one_pass_per_threshold_ties_included(masks: np.ndarray, maps: np.ndarray) -> None:
    if masks.any() and not masks.all():
        assert aupro(masks, maps) == pytest.approx(slow_aupro(masks, maps, 0.3), abs=1e-4)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_agrees_on_smooth_maps(limit: float) -> None:
    stream = np.random.default_rng(0)
    masks = stream.random((3, 10, 10)) > 0.8
    maps = (masks + stream.normal(size=masks.shape)).astype(np.float32)
    assert aupro(masks, maps, limit) == pytest.approx(slow_aupro(masks, maps, limit), abs=1e-4)


def test_a_small_region_counts_as_much_as_a_large_one() -> None:
    masks = np.zeros((1, 20, 20), dtype=bool)
    masks[0, :10, :10] = True
    masks[0, 15, 15] = True
    found_large = masks.astype(np.float32)
    found_large[0, 15, 15] = -1
    # Half the overlap at once, the other half only after every normal pixel.
    assert aupro(masks, found_large) == pytest.approx(0.5)
    assert aupro(masks, masks.astype(np.float32)) == pytest.approx(1.0)


def test_pixels_that_touch_at_a_corner_are_one_region() -> None:
    masks = np.zeros((1, 6, 6), dtype=bool)
    masks[0, 0, 0] = masks[0, 1, 1] = masks[0, 5, 5] = True
    maps = np.zeros((1, 6, 6), dtype=np.float32)
    maps[0, 0, 0] = 3
    # One of the two touching pixels is found before any normal one: overlap (1/2 + 0) / 2; all else ties at 0.
    assert aupro(masks, maps) == pytest.approx(0.25 + 0.75 * 0.15)


def test_a_constant_map_is_worth_half_the_limit() -> None:
    masks = np.eye(4, dtype=bool)[None]
    assert aupro(masks, np.ones((1, 4, 4), dtype=np.float32)) == pytest.approx(0.15)


@pytest.mark.parametrize("value", [True, False])
def test_no_figure_without_both_kinds_of_pixels(value: bool) -> None:
    masks = np.full((1, 3, 3), value)
    assert math.isnan(aupro(masks, np.ones((1, 3, 3), dtype=np.float32)))
