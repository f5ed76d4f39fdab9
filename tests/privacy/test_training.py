"""Private local training from end to end: what it costs, what it repeats, and when it refuses."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fed_fsad.errors import BudgetSpent, PolicyRefusal
from fed_fsad.methods.method import TrainingSettings
from fed_fsad.privacy.accounting import noise_for
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.lines import Request
from fed_fsad.privacy.noise import Noise, SecureNoise
from fed_fsad.privacy.policy import Policy
from fed_fsad.privacy.release import Outbox
from fed_fsad.privacy.training import Books, Plan, train_privately
from tests.privacy.toys import Toy, images, rows

SAMPLES = images(30)
SETTINGS = TrainingSettings(lr=0.05)
POLICY = Policy(privacy="example", epsilon=8, delta=1e-5, steps_per_round=2)
ROUNDS = 3


@contextmanager
def books(folder: Path, policy: Policy = POLICY) -> Iterator[Books]:
    with Ledger.open(folder / "ledger.jsonl", unit=policy.unit, delta=policy.delta, epsilon=policy.epsilon) as ledger:
        yield Books(policy, ledger, Outbox(folder / "outbox"))


class Silence:
    """No noise at all, but says how much of it was drawn."""

    secure = True

    def __init__(self) -> None:
        self.drawn = 0

    def normal(self, shape: Sequence[int]) -> Tensor:
        self.drawn += 1
        return torch.zeros(tuple(shape), dtype=torch.float64)


def asked(
    own: Books,
    round_: int = 1,
    run: str = "run",
    method: Toy | None = None,
    noise: Noise | None = None,
    plan: Plan = Plan(ROUNDS, (1.0,)),  # noqa: B008
) -> Mapping[str, Tensor]:
    return train_privately(
        method or Toy(),
        SETTINGS,
        rows,
        SAMPLES,
        parts=["map"],
        books=own,
        request=Request(run=run, round=round_, method="toy", key="the same question"),
        plan=plan,
        noise=noise or SecureNoise(),
    )


def test_after_the_last_planned_round_the_budget_is_spent_and_not_a_bit_more(tmp_path: Path) -> None:
    told = []
    for round_ in range(1, ROUNDS + 1):
        with books(tmp_path) as own:
            asked(own, round_)
            told.append(own.ledger.epsilon)
    assert told == sorted(told)
    assert POLICY.epsilon * (1 - 1e-6) < told[-1] <= POLICY.epsilon
    with books(tmp_path) as own:
        planned = noise_for(8, 1e-5, ROUNDS * POLICY.steps_per_round)
        assert [charge.sigma for charge in own.ledger.charges] == [pytest.approx(planned)] * ROUNDS
        with pytest.raises(BudgetSpent):
            asked(own, ROUNDS + 1)
        assert len(own.ledger.charges) == ROUNDS


def test_two_methods_share_the_budget(tmp_path: Path) -> None:
    with books(tmp_path) as own:
        asked(own, plan=Plan(ROUNDS, (1.0, 1.0)))
        assert own.ledger.charges[0].sigma == pytest.approx(noise_for(8, 1e-5, 2 * ROUNDS * POLICY.steps_per_round))


def test_the_same_question_gets_the_same_bytes_and_costs_nothing(tmp_path: Path) -> None:
    with books(tmp_path) as own:
        first, spent = asked(own), own.ledger.epsilon
    with books(tmp_path) as own:
        method = Toy(seed=5)
        again = asked(own, method=method)
        assert own.ledger.epsilon == spent
        assert method.graphs == [], "nothing is computed again"
    assert list(first) == list(again) == ["map/weight", "map/shift"]
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_only_the_given_part_leaves_moved_by_steps_on_full_batches_with_noise_for_every_tensor(tmp_path: Path) -> None:
    method, noise = Toy(), Silence()
    with books(tmp_path) as own:
        released = asked(own, method=method, noise=noise)
    assert set(released) == {"map/weight", "map/shift"}
    assert all(not torch.equal(released[name], Toy().snapshot()[name]) for name in released)
    assert torch.equal(method.idle, Toy().idle)
    assert noise.drawn == POLICY.steps_per_round * len(released)
    seen = sum(len(part.query) for part in method.graphs)
    assert seen == POLICY.steps_per_round * len(SAMPLES), "every image is a query once in every step"


def test_a_budget_almost_used_up_refuses_instead_of_drowning_in_noise(tmp_path: Path) -> None:
    with books(tmp_path, POLICY.model_copy(update={"epsilon": 7.999})) as own:
        asked(own, run="before", plan=Plan(1, (1.0,)))
    method = Toy()
    with books(tmp_path) as own:
        assert own.ledger.epsilon < POLICY.epsilon
        with pytest.raises(BudgetSpent, match="the rest only buys noise"):
            asked(own, method=method)
        assert len(own.ledger.charges) == 1
    assert torch.equal(method.map, Toy().map)


def test_too_few_records_for_the_noise_refuse_before_anything_is_written(tmp_path: Path) -> None:
    strict = POLICY.model_copy(update={"largest_rho": 0.01})
    with books(tmp_path, strict) as own:
        with pytest.raises(PolicyRefusal, match=r"the policy stops at 0\.01"):
            asked(own)
        assert own.ledger.charges == ()
    assert not (tmp_path / "outbox").exists()
