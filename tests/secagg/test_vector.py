"""Quantise, add modulo 2³², read: right to half a step, exact in any order, never past the modulus."""

import math

import numpy as np
import pytest
import torch
from flwr.common.secure_aggregation.quantization import quantize
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fed_fsad.config.secure import MODULUS, SecureSettings
from fed_fsad.fields import MalformedMessage
from fed_fsad.privacy.hospital import flat
from fed_fsad.secagg.crypto import Vector
from fed_fsad.secagg.vector import Layout, Quantiser, read_sum

CURRENT = {"m": {"context/t": torch.zeros(2, 3), "affine/s": torch.zeros(())}, "n": {"affine/x": torch.zeros(4)}}
LAYOUT = Layout.of(CURRENT)


def update_of(values: list[float]) -> dict[str, Tensor]:
    """11 numbers as an update of everything in CURRENT."""
    flat_values, found = torch.tensor(values, dtype=torch.float64), {}
    start = 0
    for name, tensor in flat(CURRENT).items():
        found[name] = flat_values[start : start + tensor.numel()].reshape(tensor.shape)
        start += tensor.numel()
    return found


def total(vectors: list[Vector]) -> Vector:
    return np.sum(vectors, axis=0, dtype=np.uint32)  # type: ignore[no-any-return]


updates = st.lists(st.lists(st.floats(-1e3, 1e3), min_size=11, max_size=11), min_size=3, max_size=8)


@settings(deadline=None)
@given(updates=updates, clip=st.floats(1e-3, 1e3), levels=st.sampled_from([2**12, 2**22, 10**6 + 1, 2**29 - 1]))
def test_a_sum_is_that_of_the_clipped_updates_to_half_a_step_each(
    updates: list[list[float]], clip: float, levels: int
) -> None:
    quantiser = Quantiser(clip, levels)
    steps = [quantiser.steps(update_of(values)) for values in updates]
    found = read_sum(
        total([LAYOUT.fill(own) for own in steps]), LAYOUT, quantiser, sites=len(updates), smallest=3, current=CURRENT
    )
    bound = clip - clip / levels * math.sqrt(11)
    wanted = dict.fromkeys(flat(CURRENT), torch.zeros((), dtype=torch.float64))
    for values in updates:
        norm = math.sqrt(sum(value * value for value in values))
        factor = min(1.0, bound / norm) if norm else 1.0
        wanted = {name: wanted[name] + factor * tensor for name, tensor in update_of(values).items()}
    # clip_update shortens by a millionth more than it must
    slack = len(updates) * (clip / levels + 2e-6 * clip)
    assert set(found.sums) == set(wanted)
    assert all(float((found.sums[name] - wanted[name]).abs().max()) <= slack for name in wanted)
    assert set(found.counts.values()) == {len(updates)}


@settings(deadline=None)
@given(values=st.lists(st.floats(-1e6, 1e6), min_size=11, max_size=11), clip=st.floats(1e-3, 1e3))
def test_an_update_is_no_longer_than_the_bound_after_rounding_too(values: list[float], clip: float) -> None:
    quantiser = Quantiser(clip, 2**12)
    vector = LAYOUT.fill(quantiser.steps(update_of(values)))
    alone = read_sum(vector, LAYOUT, quantiser, sites=1, smallest=1, current=CURRENT)
    assert math.sqrt(sum(float(tensor.square().sum()) for tensor in alone.sums.values())) <= clip * (1 + 1e-12)


@given(cohort=st.integers(3, 2000), levels=st.integers(2, MODULUS - 1))
def test_no_cohort_that_the_config_lets_through_can_pass_the_modulus(cohort: int, levels: int) -> None:
    problem = SecureSettings(target_range=levels).problem(
        cohort, mean=True, weighting="equal", late="drop", adaptive=False
    )
    assert (problem is None) == (cohort * levels <= MODULUS - 1)


def test_the_largest_sum_that_is_let_through_is_read_right() -> None:
    levels = (MODULUS - 1) // 8
    quantiser = Quantiser(1.0, levels)
    update = update_of([1.0] + [0.0] * 10)
    vectors = [LAYOUT.fill(quantiser.steps(update)) for _ in range(8)]
    found = read_sum(total(vectors), LAYOUT, quantiser, sites=8, smallest=3, current=CURRENT)
    assert abs(float(found.sums["m|affine/s"]) - 8.0) < 1e-4


@given(order=st.permutations(range(5)))
def test_the_order_of_the_sites_does_not_matter_to_the_last_bit(order: list[int]) -> None:
    quantiser = Quantiser(1.0, 2**22)
    vectors = [LAYOUT.fill(quantiser.steps(update_of([0.1 * i, -0.03] + [0.01] * 9))) for i in range(5)]
    assert np.array_equal(total([vectors[i] for i in order]), total(vectors))


def test_steps_are_those_of_flower_up_to_its_coin() -> None:
    values = torch.linspace(-0.3, 0.3, 4, dtype=torch.float64)
    ours = Quantiser(1.0, 2**12).steps({"n|affine/x": values})["n|affine/x"]
    (theirs,) = quantize([values.numpy()], 1.0, 2**12)
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_pieces_left_out_are_zero_and_their_count_is() -> None:
    quantiser = Quantiser(1.0, 2**22)
    vector = LAYOUT.fill(quantiser.steps({"n|affine/x": torch.ones(4) / 4}))
    assert vector[:3].tolist() == [0, 0, 1]
    LAYOUT.blank(vector, {"n|affine"})
    assert not vector.any()


def test_noise_is_never_read_as_a_sum() -> None:
    quantiser, noise = Quantiser(1.0, 2**22), np.random.default_rng(0)
    for _ in range(200):
        vector = noise.integers(0, 2**32, LAYOUT.length, dtype=np.uint32)
        vector[:3] = 3  # counts that make sense do not save the rest
        with pytest.raises(MalformedMessage, match="out of range"):
            read_sum(vector, LAYOUT, quantiser, sites=3, smallest=3, current=CURRENT)


@pytest.mark.parametrize(
    ("counts", "value", "words"),
    [
        ([4, 3, 3], 2**21, "counts more sites"),
        ([2, 3, 3], 2**21, "counts more sites than took part, or too few"),
        ([3, 3, 3], 3 * 2**22, "longer than 3 clipped updates"),
        ([0, 3, 3], 2**21, "out of range"),
    ],
)
def test_a_sum_that_cannot_be_one_is_refused(counts: list[int], value: int, words: str) -> None:
    vector = np.full(LAYOUT.length, value, np.uint32)
    vector[:3] = counts
    with pytest.raises(MalformedMessage, match=words):
        read_sum(vector, LAYOUT, Quantiser(1.0, 2**22), sites=3, smallest=3, current=CURRENT)
