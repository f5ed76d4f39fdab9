"""Noise is normal, never repeats when it must not, and always repeats when it is seeded."""

import time

import pytest
import torch
from scipy.stats import kstest, kurtosis, pearsonr

from fed_fsad.privacy.noise import InsecureSeededNoise, Noise, SecureNoise


@pytest.mark.parametrize("noise", [SecureNoise(), InsecureSeededNoise(3)])
def test_values_are_standard_normal_and_independent(noise: Noise) -> None:
    values = noise.normal([400_000]).numpy()
    assert kstest(values, "norm").pvalue > 1e-6
    assert abs(values.mean()) < 6 / len(values) ** 0.5
    assert abs(values.var() - 1) < 6 * (2 / len(values)) ** 0.5
    assert abs(kurtosis(values)) < 6 * (24 / len(values)) ** 0.5
    # The two halves of a block share their Box-Muller radius: neither values nor squares may be correlated.
    first, second = values[:131_072], values[131_072:262_144]
    for power in (1, 2):
        assert pearsonr(first**power, second**power).pvalue > 1e-6


def test_shapes_and_precision() -> None:
    noise = SecureNoise()
    assert noise.normal([]).shape == ()
    assert noise.normal([0, 4]).shape == (0, 4)
    assert noise.normal([3, 5, 7]).shape == (3, 5, 7)
    values = noise.normal([301_001])
    assert values.dtype == torch.float64
    assert len(set(values.tolist())) == len(values)


def test_secure_noise_never_repeats() -> None:
    noise = SecureNoise()
    torch.manual_seed(0)
    first = noise.normal([64])
    torch.manual_seed(0)
    assert not torch.equal(first, noise.normal([64]))
    assert not torch.equal(first, SecureNoise().normal([64]))
    assert noise.secure


def test_seeded_noise_follows_from_its_seed_and_says_that_it_is_insecure() -> None:
    first = InsecureSeededNoise(5)
    values = [first.normal([7]), first.normal([7])]
    again = InsecureSeededNoise(5)
    assert torch.equal(again.normal([7]), values[0])
    assert torch.equal(again.normal([7]), values[1])
    assert not torch.equal(values[0], values[1])
    assert not torch.equal(InsecureSeededNoise(6).normal([7]), values[0])
    assert not first.secure


def test_a_million_values_cost_little() -> None:
    noise = SecureNoise()
    noise.normal([1_000_000])
    best = min(_seconds(noise) for _ in range(3))
    assert best < 0.5, "about 0.05 s on one quiet core; the bound leaves room for a busy machine"


def _seconds(noise: Noise) -> float:
    start = time.process_time()
    noise.normal([1_000_000])
    return time.process_time() - start
