"""SCAFFOLD's arithmetic from site to server and back, and what the server refuses of it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fed_fsad import __version__
from fed_fsad.messages import Instruction, Reply
from fed_fsad.methods.local import ControlVariates, LocalTraining
from server.aggregate import Aggregator
from server.checkpoint import load_checkpoint
from server.variates import Variates, kept_of, outsized_variates, variates_fault
from tests.server.fakes import config_of, coordinator, honest, lines
from tests.server.test_aggregate import settings

STEP, LOCAL, ROUNDS = 0.1, 4, 6


def quadratic(site: int) -> tuple[Any, Any]:
    """A site's loss ½ (w − b)ᵀ A (w − b), as A [3, 3] and b [3]."""
    rng = np.random.default_rng(site)
    root = rng.normal(size=(3, 3))
    return root @ root.T / 3 + np.eye(3), rng.normal(size=3) * 3


def scaffold_by_the_paper(sites: int, per_round: int) -> Any:
    """Karimireddy et al. 2020, Algorithm 1 with option II and a global step size of 1; w after every round, [T, 3]."""
    w, c, own = np.zeros(3), np.zeros(3), np.zeros((sites, 3))
    path = []
    for round_ in range(ROUNDS):
        chosen = [(round_ + i) % sites for i in range(per_round)]
        moved, steps = [], []
        for i in chosen:
            a, b = quadratic(i)
            y = w.copy()
            for _ in range(LOCAL):
                y = y - STEP * (a @ (y - b) - own[i] + c)
            new = own[i] - c + (w - y) / (LOCAL * STEP)
            moved.append(y - w)
            steps.append(new - own[i])
            own[i] = new
        w, c = w + np.mean(moved, 0), c + per_round / sites * np.mean(steps, 0)
        path.append(w)
    return np.array(path)


@pytest.fixture(autouse=True)
def _task_identity(tmp_path: Path) -> None:
    """Flower messages can only be made inside a run."""
    coordinator(tmp_path / "identity", {"a": honest("a")})


@pytest.mark.parametrize(("sites", "per_round"), [(3, 3), (4, 2)])
def test_site_and_server_together_are_the_papers_algorithm(sites: int, per_round: int) -> None:
    current: dict[str, Tensor] = {"map/w": torch.zeros(3, dtype=torch.float64)}
    variates, aggregator = Variates({"m": current}, sites), Aggregator(settings())
    own = [{"map/w": torch.zeros(3, dtype=torch.float64)} for _ in range(sites)]
    path = []
    for round_ in range(ROUNDS):
        replies = []
        for i in [(round_ + i) % sites for i in range(per_round)]:
            a, b = (torch.from_numpy(part) for part in quadratic(i))
            correct, w = ControlVariates(variates.sent["m"], own[i]), current["map/w"].clone()
            for _ in range(LOCAL):
                seen = correct({"map/w": w}, {"map/w": a @ (w - b)})["map/w"]
                assert seen is not None
                w = w - STEP * seen
            after = correct.next()
            step = {name: after[name] - own[i][name] for name in after}
            own[i] = after
            replies.append(Reply(f"s{i}", __version__, tensors={"m": {"map/w": w}}, variates={"m": step}))
        current = aggregator.combine(round_ + 1, "m", current, replies)
        variates.add(replies)
        path.append(current["map/w"].numpy())
    np.testing.assert_allclose(np.array(path), scaffold_by_the_paper(sites, per_round), rtol=1e-9, atol=1e-12)


def test_tensors_without_gradient_or_variate_keep_what_they_had() -> None:
    one = {"a/x": torch.ones(2), "a/y": torch.ones(2)}
    correct = ControlVariates(one, {name: 2 * value for name, value in one.items()})
    seen = correct(one, {"a/x": torch.zeros(2), "a/y": None, "b/z": torch.ones(1)})
    assert seen["a/y"] is None
    assert [seen[name].tolist() for name in ("a/x", "b/z")] == [[-1, -1], [1]]  # type: ignore[union-attr]
    assert {name: value.tolist() for name, value in correct.next().items()} == {"a/x": [0, 0], "a/y": [2, 2]}


def test_variates_survive_a_checkpoint_beside_the_moments() -> None:
    first = Variates({"m": {"a/x": torch.zeros(2)}}, 4)
    first.add([Reply("s", __version__, variates={"m": {"a/x": torch.full((2,), 2.0)}}, round=3)])
    moments, ours = kept_of({"m/a|m_t|a/x": torch.ones(1), **first.state()})
    second = Variates({"m": {"a/x": torch.zeros(2)}}, 4)
    second.restore(ours, first.entered)
    assert {site: told.entered for site, told in second.told(asked(), ["s", "t"]).items()} == {"s": 3, "t": 0}
    assert list(moments) == ["m/a|m_t|a/x"]
    assert second.sent["m"]["a/x"].tolist() == [0.5, 0.5]


def asked(local: str = "scaffold") -> Instruction:
    sent = {"m": {"a/x": torch.zeros(2), "a/y": torch.zeros(1), "b/z": torch.zeros(1)}}
    return Instruction(
        "run", 1, 3, 0, 1, 3, {}, sent, local=LocalTraining.model_validate({"name": local}), variates=sent
    )


GOOD = {"a/x": torch.ones(2), "a/y": torch.ones(1)}


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ({"m": GOOD}, None),
        ({}, "m: its control variates are not those of the tensors it sends"),
        ({"m": GOOD | {"b/z": torch.ones(1)}}, "m: its control variates are not those of the tensors it sends"),
        ({"m": GOOD | {"a/y": torch.ones(2)}}, "m: control variates: a/y has shape (2,), not (1,)"),
        (
            {"m": GOOD | {"a/y": torch.full((1,), float("nan"))}},
            "m: control variates: a/y holds NaN or infinite values",
        ),
        ({"m": GOOD, "n": GOOD}, "n: it sends control variates and no tensors"),
    ],
)
def test_variates_are_checked_like_tensors(steps: dict[str, dict[str, Tensor]], said: str | None) -> None:
    reply = Reply("s", __version__, tensors={"m": GOOD}, variates=steps)
    assert variates_fault(reply, asked()) == said
    unasked = "it sends control variates that nobody asked for" if steps else None
    assert variates_fault(reply, asked("plain")) == unasked


def test_a_step_out_of_all_proportion_is_left_out() -> None:
    sizes = {"a": 1.0, "b": 1.5, "c": 1000.0}
    replies = [Reply(s, __version__, variates={"m": {"a/x": torch.full((2,), size)}}) for s, size in sizes.items()]
    assert list(outsized_variates(replies, 20)) == ["c"]
    assert "the step of its control variates is 1.41e+03 long" in outsized_variates(replies, 20)["c"]
    assert outsized_variates([replace(reply, variates={}) for reply in replies], 20) == {}


def stepping(site: str, size: float = 1.0) -> Callable[[Instruction], Reply]:
    def answer(instruction: Instruction) -> Reply:
        reply = honest(site)(instruction)
        assert isinstance(reply, Reply)
        steps = {m: {n: torch.full_like(t, size) for n, t in own.items()} for m, own in instruction.variates.items()}
        return replace(reply, variates=steps)

    return answer


def test_the_coordinator_sends_adds_and_keeps_them_and_leaves_out_a_bad_site(tmp_path: Path) -> None:
    behaviours = {site: stepping(site) for site in ("a", "b", "c")} | {"evil": stepping("evil", 1e6)}
    config = config_of(list(behaviours), rounds=2, local="{name: scaffold}")
    built, run, scorer = coordinator(tmp_path, behaviours, config)
    built.train()
    found = load_checkpoint(run.checkpoints, run.run_id, scorer.initial())
    assert found is not None
    _, ours = kept_of(found.moments)
    assert {float(value.mean()) for value in ours.values()} == {2 * 3 / 4}, "two rounds of three good steps, four sites"
    rejected = [line for line in lines(run, "site") if line["status"] == "rejected"]
    assert {line["site"] for line in rejected} == {"evil"}


def test_c_stays_the_mean_of_all_variates_where_an_update_is_rejected(tmp_path: Path) -> None:
    """Sites whose variates are numbers of their own, by round, as LocalParts keeps them."""
    kept: dict[str, dict[int, float]] = {site: {0: 0.0} for site in ("a", "b", "c", "d")}

    def site(name: str) -> Callable[[Instruction], Reply]:
        def answer(told: Instruction) -> Reply:
            kept[name][told.round] = float(told.round * (1 + ord(name) - ord("a")))
            reply = stepping(name, kept[name][told.round] - kept[name][told.entered])(told)
            return replace(reply, tensors={}) if (name, told.round) == ("d", 2) else reply

        return answer

    config = config_of(list(kept), rounds=3, local="{name: scaffold}")
    built, run, scorer = coordinator(tmp_path, {name: site(name) for name in kept}, config)
    built.train()
    found = load_checkpoint(run.checkpoints, run.run_id, scorer.initial())
    assert found is not None
    _, ours = kept_of(found.moments)
    assert [line["site"] for line in lines(run, "site") if line["status"] == "rejected"] == ["d"]
    assert found.standing["variates"] == dict.fromkeys(kept, 3)
    assert {float(value.mean()) for value in ours.values()} == {3 * (1 + 2 + 3 + 4) / 4}


def test_variates_that_nobody_asked_for_are_rejected(tmp_path: Path) -> None:
    def pushing(instruction: Instruction) -> Reply:
        reply = honest("a")(instruction)
        assert isinstance(reply, Reply)
        return replace(reply, variates=reply.tensors)

    built, run, _ = coordinator(tmp_path, {"a": pushing, "b": honest("b"), "c": honest("c")})
    built.train()
    reasons = {line["reason"] for line in lines(run, "site") if line["site"] == "a"}
    assert "it sends control variates that nobody asked for" in reasons
