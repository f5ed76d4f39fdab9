"""Poisson sampling really done: secret coins, a fixed divisor, noise for an empty batch, its price in the ledger."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import binomtest, chi2
from torch import Tensor

from fed_fsad.data.episodes import Episode
from fed_fsad.errors import BudgetSpent
from fed_fsad.methods.method import Method
from fed_fsad.privacy.accounting import noise_for
from fed_fsad.privacy.admission import claim
from fed_fsad.privacy.composition import Releases, spent
from fed_fsad.privacy.gradients import PrivateGradient, clipped_sum, private_gradient, select_records
from fed_fsad.privacy.noise import InsecureSeededNoise, SecureNoise, drawn
from fed_fsad.privacy.policy import Policy
from fed_fsad.privacy.records import partition_records, private_episode
from fed_fsad.privacy.training import Plan, sampling_rate
from tests.privacy.test_training import SAMPLES, asked, books
from tests.privacy.toys import Toy, images, rows

NAMES = ("map/weight", "map/shift")
POLICY = Policy(privacy="example", epsilon=6, delta=1e-5, expected_batch=4)
RECORDS = len(SAMPLES) // 3
RATE = 4 / RECORDS
PLAN = Plan(3, (RATE,))


@pytest.mark.parametrize("rate", [0.02, 0.4, 0.9])
def test_every_record_enters_by_a_coin_of_its_own(rate: float) -> None:
    noise, count, steps = SecureNoise(), 50, 600
    entered = torch.zeros(steps, count, dtype=torch.float64)
    for step in range(steps):
        entered[step, drawn(noise, count, rate)] = 1
    assert binomtest(int(entered.sum()), steps * count, rate).pvalue > 1e-6
    each = ((entered.sum(0) - steps * rate) ** 2).sum() / (steps * rate * (1 - rate))
    assert 1e-6 < chi2.cdf(float(each), count) < 1 - 1e-6
    sizes = entered.sum(1)
    assert sizes.var() == pytest.approx(count * rate * (1 - rate), rel=0.4), "as spread as independent coins make it"
    again = (entered[1:] * entered[:-1]).sum()
    assert binomtest(int(again), (steps - 1) * count, rate**2).pvalue > 1e-6, "a step does not know the one before"


def test_a_batch_is_as_large_as_the_coins_say_and_full_up_to_the_expected_size() -> None:
    records = tuple((str(i),) for i in range(10))
    assert sampling_rate(records, POLICY) == 0.4
    assert sampling_rate(records[:4], POLICY) == 1.0
    assert sampling_rate(records, Policy()) == 1.0


def test_the_divisor_is_the_expected_size_whatever_the_coins_say() -> None:
    toy = Toy(supports=0)
    samples = images(8)
    episode = private_episode(rows(samples), partition_records(samples, toy.episode, 0, "image"), 0)
    for chosen in ([], [3], [0, 1, 2, 3, 4, 5, 6, 7]):
        batch = select_records(episode, chosen)
        found = private_gradient(
            toy, batch, records=2.5, clip_norm=1, noise_multiplier=0, noise=SecureNoise(), names=NAMES
        )
        total = clipped_sum(toy, batch, 1, NAMES)
        assert total.records == len(chosen)
        for name in NAMES:
            torch.testing.assert_close(found.gradients[name], total.total[name] / 2.5)


def test_training_divides_by_the_expected_size_whatever_the_coins_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    divisors, sizes = [], []

    def watched(method: Method, episode: Episode, **told: Any) -> PrivateGradient:
        divisors.append(told["records"])
        sizes.append(len(set(episode.record.tolist())))
        return private_gradient(method, episode, **told)

    monkeypatch.setattr("fed_fsad.privacy.training.private_gradient", watched)
    for round_ in range(1, 4):
        with books(tmp_path, POLICY.model_copy(update={"steps_per_round": 4})) as own:
            asked(own, round_, noise=SecureNoise(), plan=PLAN)
    assert divisors == [RATE * RECORDS] * 12
    assert len(set(sizes)) > 1, "and the batches were of several sizes"


class Recorder:
    """Seeded noise that keeps what it was asked for."""

    secure = True

    def __init__(self) -> None:
        self._noise = InsecureSeededNoise(5)
        self.shapes: list[tuple[int, ...]] = []

    def normal(self, shape: Sequence[int]) -> Tensor:
        self.shapes.append(tuple(shape))
        return self._noise.normal(shape)


def test_training_draws_its_batches_anew_in_every_step_and_pays_the_sampled_price(tmp_path: Path) -> None:
    told, batches, noise = [], [], Recorder()
    for round_ in range(1, 4):
        method = Toy()
        with books(tmp_path, POLICY) as own:
            asked(own, round_, method=method, noise=noise, plan=PLAN)
            told.append(own.ledger.epsilon)
            charge = own.ledger.charges[-1]
            assert charge.rate == RATE
            assert charge.sigma < noise_for(POLICY.epsilon, POLICY.delta, 3), "less noise than full batches need"
            assert "(Poisson sampling)" in claim(POLICY, own.ledger)
        batches.append(frozenset(s.id for part in method.graphs for s in part.rows.samples))
    assert noise.shapes == [(RECORDS,), (3, 5), (3,)] * 3
    assert len(set(batches)) == 3
    assert told == [pytest.approx(spent([Releases(n, charge.sigma, RATE)], POLICY.delta)) for n in (1, 2, 3)]
    assert POLICY.epsilon * 0.99 < told[-1] <= POLICY.epsilon
    with books(tmp_path, POLICY) as own, pytest.raises(BudgetSpent):
        asked(own, 4, plan=PLAN)


def test_an_empty_sampled_batch_still_releases_noise(tmp_path: Path) -> None:
    class NobodyEnters(Recorder):
        def normal(self, shape: Sequence[int]) -> Tensor:
            return (
                torch.full(tuple(shape), 9.0, dtype=torch.float64)
                if list(shape) == [RECORDS]
                else super().normal(shape)
            )

    method = Toy()
    with books(tmp_path, POLICY) as own:
        released = asked(own, method=method, noise=NobodyEnters(), plan=PLAN)
        assert len(own.ledger.charges) == 1, "and it is paid for"
    assert method.graphs == []
    assert all(not torch.equal(released[name], Toy().trainable()[name]) for name in NAMES)
