from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fed_fsad.errors import CheckpointError
from fed_fsad.seeds import torch_stream
from pretraining.training import Plan, Point, train

PLAN = Plan("test", seed=3, steps=6, lr=0.05, weight_decay=0.1, save_every=2)


class Broken(Exception):
    pass


def _run(state: Path, plan: Plan = PLAN, breaks_at: int | None = None) -> tuple[nn.Linear, list[Point]]:
    module = nn.Linear(4, 1)
    nn.init.constant_(module.weight, 0.5)
    nn.init.zeros_(module.bias)

    def loss(step: int) -> Tensor:
        if step == breaks_at:
            raise Broken
        x = torch.randn(8, 4, generator=torch_stream(plan.seed, step))
        value: Tensor = (module(x) - x.sum(1, keepdim=True)).square().mean()
        return value

    curve = train(module, loss, plan, state, lambda: {"bias": float(module.bias.detach())})
    return module, curve


def test_a_broken_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole, curve = _run(tmp_path / "whole.pt")
    with pytest.raises(Broken):
        _run(tmp_path / "broken.pt", breaks_at=5)
    resumed, resumed_curve = _run(tmp_path / "broken.pt")
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)
    drop = ("cpu_seconds",)
    assert [{k: v for k, v in p.items() if k not in drop} for p in curve] == [
        {k: v for k, v in p.items() if k not in drop} for p in resumed_curve
    ]


def test_the_curve_has_a_point_per_state_file_and_the_loss_falls(tmp_path: Path) -> None:
    _, curve = _run(tmp_path / "state.pt", replace(PLAN, steps=60, save_every=25))
    assert [point["step"] for point in curve] == [25, 50, 60]
    assert curve[-1]["loss"] < 0.5 * curve[0]["loss"]
    assert curve[0]["bias"] != curve[1]["bias"]


def test_a_finished_run_does_not_train_again(tmp_path: Path) -> None:
    first, _ = _run(tmp_path / "state.pt")
    again, _ = _run(tmp_path / "state.pt", breaks_at=0)
    assert torch.equal(first.weight, again.weight)


def test_the_state_of_another_plan_is_refused(tmp_path: Path) -> None:
    _run(tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="belongs to another run"):
        _run(tmp_path / "state.pt", replace(PLAN, seed=4))


def test_the_rate_rises_then_falls_to_nothing() -> None:
    plan = replace(PLAN, steps=100, lr=1.0)
    rates = [plan.rate(step) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0], abs=0.01)
    assert rates[50] == pytest.approx(0.5)
    assert rates[99] < 0.001
    assert rates[5:] == sorted(rates[5:], reverse=True)
