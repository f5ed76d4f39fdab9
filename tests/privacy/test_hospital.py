"""Hospital-level arithmetic against slow formulas, Flower's helpers on healthy input, and each of Flower's defects."""

import math
import random

import numpy as np
import pytest
import torch
from flwr.supercore.differential_privacy import clip_inputs_inplace, compute_stdv
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from fed_fsad.privacy.accounting import mu_squared, printed
from fed_fsad.privacy.hospital import (
    CLIP_RATE,
    clip_update,
    next_clip_norm,
    noise_shares,
    noisy_mean,
    noisy_share,
)
from fed_fsad.privacy.noise import InsecureSeededNoise, SecureNoise


class Silence:
    """No noise at all."""

    secure = False

    def normal(self, shape: object) -> Tensor:
        return torch.zeros(tuple(shape), dtype=torch.float64)  # type: ignore[arg-type]


def update(seed: int = 0, scale: float = 1.0) -> dict[str, Tensor]:
    stream = torch.Generator().manual_seed(seed)
    return {
        "a/weight": scale * torch.randn(3, 4, generator=stream),
        "a/bias": scale * torch.randn(4, generator=stream),
        "b/scale": scale * torch.randn((), generator=stream),
    }


def length(tensors: dict[str, Tensor]) -> float:
    return math.sqrt(math.fsum(float(x) ** 2 for tensor in tensors.values() for x in tensor.flatten()))


@pytest.mark.parametrize("clip", [0.1, 1.0, 100.0])
def test_on_healthy_updates_it_is_what_flower_computes(clip: float) -> None:
    given_ = update()
    arrays = [tensor.numpy().astype(np.float64) for tensor in given_.values()]
    clip_inputs_inplace([array for array in arrays if array.ndim], clip)
    # Flower's own list without the scalar: ours must agree once it has none either
    ours, norm = clip_update({name: tensor for name, tensor in given_.items() if tensor.dim()}, clip)
    for mine, theirs in zip(ours.values(), arrays, strict=False):
        np.testing.assert_allclose(mine.numpy(), theirs, rtol=3e-6)
    assert norm == pytest.approx(length({name: t for name, t in given_.items() if t.dim()}), rel=1e-6)


def test_a_scalar_counts_and_is_clipped_which_flower_leaves_as_it_is() -> None:
    clipped, norm = clip_update({"x/a": torch.tensor(30.0), "x/b": torch.tensor([40.0])}, 1.0)
    assert norm == 50
    assert float(clipped["x/a"]) == pytest.approx(0.6, rel=1e-5)
    assert clipped["x/a"].shape == ()
    theirs = [np.subtract(np.array(30.0), np.array(0.0))]
    clip_inputs_inplace(theirs, 1.0)
    assert theirs[0] == 30, "a difference of 0-d arrays is no array, and nothing in place reaches it"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_update_with_nan_counts_as_zero_and_does_not_switch_clipping_off(bad: float) -> None:
    given_ = update(scale=50)
    given_["a/bias"][2] = bad
    clipped, norm = clip_update(given_, 1.0)
    assert norm == math.inf
    assert length(clipped) == 0
    assert {name: tensor.shape for name, tensor in clipped.items()} == {n: t.shape for n, t in given_.items()}


def test_a_zero_update_stays_zero_where_flower_divides_by_zero() -> None:
    clipped, norm = clip_update({"a/x": torch.zeros(3)}, 1.0)
    assert norm == 0
    assert torch.equal(clipped["a/x"], torch.zeros(3))
    with np.errstate(divide="ignore", invalid="ignore"), pytest.raises(ZeroDivisionError):
        clip_inputs_inplace([np.zeros(3)], 1.0)


def test_integer_buffers_are_refused_and_never_eat_the_clip_norm() -> None:
    with pytest.raises(ValueError, match=r"batches is torch\.int64: only float tensors are updates"):
        clip_update({"bn/batches": torch.tensor(10_000), "bn/weight": torch.ones(2)}, 1.0)


def test_the_noise_is_not_the_global_generator_s() -> None:
    def drawn() -> Tensor:
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        total = {"a/x": torch.zeros(8)}
        return noisy_mean(total, clip_norm=1.0, noise_multiplier=1.0, cohort=2, noise=SecureNoise())["a/x"]

    assert not torch.equal(drawn(), drawn())


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=12),
    st.floats(1e-3, 1e3),
)
def test_nothing_is_ever_longer_than_the_clip_norm(values: list[float], clip: float) -> None:
    clipped, norm = clip_update({"a/x": torch.tensor(values), "a/y": torch.tensor(values[0])}, clip)
    assert length(clipped) <= clip
    if norm <= clip:
        assert torch.equal(clipped["a/x"], torch.tensor(values))


def test_the_noisy_mean_is_the_formula_and_as_strong_as_promised() -> None:
    total = {"a/x": torch.arange(6.0, dtype=torch.float64).reshape(2, 3), "b/s": torch.tensor(5.0, dtype=torch.float64)}
    mean = noisy_mean(total, clip_norm=0.5, noise_multiplier=3.0, cohort=4, noise=InsecureSeededNoise(1))
    noise = InsecureSeededNoise(1)
    for name, value in total.items():
        assert torch.equal(mean[name], (value + 1.5 * noise.normal(value.shape)) / 4)
    many = noisy_mean(
        {"a/x": torch.zeros(20_000)}, clip_norm=0.5, noise_multiplier=3.0, cohort=4, noise=InsecureSeededNoise(2)
    )["a/x"]
    spread = compute_stdv(3.0, 0.5, 4)
    assert spread == 0.375
    square = float((many.double() / spread).square().sum())
    assert 1e-4 < stats.chi2.cdf(square, 20_000) < 1 - 1e-4


def test_the_shares_of_adaptive_clipping_cost_what_one_release_costs() -> None:
    for sigma in (0.5, 2.0, 30.0):
        shares = noise_shares(sigma, adaptive=True)
        assert mu_squared(1, shares.update) + mu_squared(1, 2 * shares.count) == pytest.approx(mu_squared(1, sigma))
        assert noise_shares(sigma, adaptive=False).update == sigma < shares.update


def test_one_hospital_moves_the_count_by_a_half() -> None:
    norms = {"a": 0.5, "b": 1.0, "c": 2.0, "d": math.inf}

    def share(of: dict[str, float]) -> float:
        return noisy_share(of, clip_norm=1.0, count_noise=0.0, cohort=4, noise=Silence())

    assert share(norms) == 0.5, "two short of four"
    for gone in norms:
        left = {name: norm for name, norm in norms.items() if name != gone}
        assert abs(share(left) - share(norms)) == pytest.approx(0.5 / 4)
    drawn = [noisy_share(norms, clip_norm=1.0, count_noise=2.0, cohort=4, noise=SecureNoise()) for _ in range(400)]
    assert stats.kstest((np.array(drawn) - 0.5) * 4 / 2, "norm").pvalue > 1e-4


def test_the_clip_norm_follows_the_quantile_up_and_down() -> None:
    """Flower counts the clipped updates where the paper counts the others: its C runs away from the quantile."""
    norms = {str(i): 1.0 + i for i in range(9)}
    for start in (0.01, 500.0):
        clip = start
        for _ in range(200):
            share = noisy_share(norms, clip_norm=clip, count_noise=0.0, cohort=9, noise=Silence())
            slow = clip * math.exp(-0.2 * (sum(norm <= clip for norm in norms.values()) / 9 - 0.5))
            clip = next_clip_norm(clip, share, target=0.5)
            assert clip == pytest.approx(slow)
        assert 4.0 <= clip <= 6.0, "the median is 5"


@given(st.floats(0, 500))
def test_what_is_printed_is_never_less_than_what_was_spent(epsilon: float) -> None:
    said = float(printed(epsilon))
    assert epsilon * (1 - 2e-9) <= said <= epsilon * 1.011 + 1e-9
    assert (printed(7.9999999999), printed(8.0), printed(3.7965), printed(0.0)) == ("8", "8", "3.8", "0")
    assert (printed(1.3611), printed(25.61), printed(123.4)) == ("1.37", "25.7", "124")


def test_no_draw_of_noise_moves_the_clip_norm_by_more_than_its_rate() -> None:
    assert next_clip_norm(1.0, 1e9, 0.5) == pytest.approx(math.exp(-CLIP_RATE / 2))
    assert next_clip_norm(1.0, -1e9, 0.5) == pytest.approx(math.exp(CLIP_RATE / 2))
