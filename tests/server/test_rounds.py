"""What Flower does not guard, as far as a round can meet it: a bad update is named and left out, the rest goes on."""

from pathlib import Path

import pytest
import torch
from flwr.app import ConfigRecord, RecordDict
from torch import Tensor

from fed_fsad import __version__
from fed_fsad.errors import FederationError
from fed_fsad.messages import Instruction, Reply
from fed_fsad.summary import summarise
from server.checkpoint import load_checkpoint
from tests.server.fakes import (
    Behaviour,
    FakeScorer,
    altered,
    answering,
    config_of,
    coordinator,
    cut_off,
    failing,
    honest,
    lines,
)


def final(run_path: Path, run_id: str) -> dict[str, Tensor]:
    found = load_checkpoint(run_path / "checkpoints", run_id, FakeScorer().initial())
    assert found is not None
    return dict(found.tensors["d24fad"])


def nan(tensors: dict[str, Tensor]) -> None:
    tensors["affine/a"][1] = float("nan")


def infinite(tensors: dict[str, Tensor]) -> None:
    tensors["affine/b"] = torch.full((2, 2), float("inf"))


def reshaped(tensors: dict[str, Tensor]) -> None:
    tensors["affine/a"] = torch.zeros(4)


def short(tensors: dict[str, Tensor]) -> None:
    del tensors["affine/b"]


def extra(tensors: dict[str, Tensor]) -> None:
    tensors["affine/z"] = torch.zeros(1)


def retyped(tensors: dict[str, Tensor]) -> None:
    tensors["affine/a"] = torch.zeros(3, dtype=torch.float64)


def counters(tensors: dict[str, Tensor]) -> None:
    tensors["affine/a"] = torch.zeros(3, dtype=torch.int64)


def huge(tensors: dict[str, Tensor]) -> None:
    tensors["affine/a"] = torch.full((3,), 1e6)


def counting(site: str, count: int) -> Behaviour:
    return honest(site, examples=count)


def impostor(instruction: Instruction) -> Reply:
    reply = honest("a")(instruction)
    assert isinstance(reply, Reply)
    return reply


def outdated(instruction: Instruction) -> Reply:
    reply = honest("bad")(instruction)
    assert isinstance(reply, Reply)
    return Reply("bad", "0.0.1", tensors=reply.tensors, examples=reply.examples)


BAD: dict[str, tuple[Behaviour, str, str]] = {
    "NaN": (altered("bad", nan), "rejected", "affine/a holds NaN"),
    "infinity": (altered("bad", infinite), "rejected", "affine/b holds NaN or infinite"),
    "shape": (altered("bad", reshaped), "rejected", "affine/a has shape (4,), not (3,)"),
    "missing key": (altered("bad", short), "rejected", "affine/b is missing"),
    "extra key": (altered("bad", extra), "rejected", "unknown tensor affine/z"),
    "dtype": (altered("bad", retyped), "rejected", "float64"),
    "integer counters": (altered("bad", counters), "rejected", "int64"),
    "norm": (altered("bad", huge), "rejected", "times the cohort's median"),
    "no examples": (counting("bad", 0), "rejected", "claims 0 images"),
    "negative examples": (counting("bad", -3), "rejected", "claims -3 images"),
    "nothing": (answering(Reply("bad", __version__)), "rejected", "no tensors"),
    "unasked method": (
        answering(Reply("bad", __version__, tensors={"other": {"a/b": torch.zeros(1)}})),
        "rejected",
        "nobody asked for",
    ),
    "no contract": (answering(RecordDict({"x": ConfigRecord({"y": 1})})), "rejected", "no 'reply' record"),
    "another's name": (impostor, "rejected", "in the name of 'a'"),
    "old version": (outdated, "rejected", "0.0.1"),
    "exception": (failing, "error", "code 2"),
    "refusal": (answering(Reply("bad", __version__, "refused", "policy")), "refused", "policy"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_update_is_left_out_and_named_and_the_round_goes_on(tmp_path: Path, kind: str) -> None:
    behaviour, status, words = BAD[kind]
    behaviours = {"a": honest("a", 1.0), "b": honest("b", 2.0), "c": honest("c", 3.0), "bad": behaviour}
    federation, run, _ = coordinator(tmp_path, behaviours, config_of(list(behaviours), rounds=2))
    federation.train()
    tensors = final(tmp_path, run.run_id)
    assert torch.allclose(tensors["affine/a"], torch.full((3,), 2.0 * (1 + 2)))
    bad = [line for line in lines(run, "site") if line["site"] == "bad"]
    assert [line["status"] for line in bad] == [status, status]
    assert all(words in line["reason"] for line in bad), bad[0]["reason"]
    assert summarise(run, "completed")["sites"]["bad"]["failures"] == 2
    assert "jane" not in (tmp_path / "metrics.jsonl").read_text()


def test_when_every_site_fails_the_run_fails_and_says_who_and_why(tmp_path: Path) -> None:
    federation, run, _ = coordinator(tmp_path, {"a": failing, "b": altered("b", nan)})
    with pytest.raises(
        FederationError, match=r"(?s)round 1 got 0 valid replies.*a: its app failed.*b: d24fad.*NaN.*--resume auto"
    ):
        federation.train()
    assert not (tmp_path / "checkpoints").exists()
    assert len(lines(run, "round")) == 1


def test_too_few_replies_repeat_the_round_and_then_stop_at_a_resumable_checkpoint(tmp_path: Path) -> None:
    patience = {"left": 4}

    def tiring(instruction: Instruction) -> Reply:
        patience["left"] -= 1
        if patience["left"] < 0:
            raise RuntimeError("gone")
        reply = honest("b")(instruction)
        assert isinstance(reply, Reply)
        return reply

    behaviours: dict[str, Behaviour] = {"a": honest("a"), "b": tiring}
    config = config_of(["a", "b"], rounds=6, min_replies=2, retries=2)
    federation, run, _ = coordinator(tmp_path, behaviours, config)
    with pytest.raises(FederationError, match="round 5 got 1 valid replies of the 2 it needs after 3 tries"):
        federation.train()
    attempts = [line["attempt"] for line in lines(run, "round") if line["round"] == 5]
    assert attempts == [1, 2, 3]
    assert len([text for text in lines(run, "warning") if "round 5" in text["text"]]) == 3
    patience["left"] = 100
    resumed, _, _ = coordinator(tmp_path, behaviours, config)
    resumed.train()
    assert torch.allclose(final(tmp_path, run.run_id)["kernels/c"], torch.tensor(21.0))


def test_a_site_that_fails_once_is_asked_again_in_the_same_round(tmp_path: Path) -> None:
    calls = {"b": 0}

    def stumbling(instruction: Instruction) -> Reply:
        calls["b"] += 1
        if calls["b"] == 1:
            raise RuntimeError("hiccup")
        reply = honest("b")(instruction)
        assert isinstance(reply, Reply)
        return reply

    config = config_of(["a", "b"], rounds=1, min_replies=2, retries=1)
    federation, run, _ = coordinator(tmp_path, {"a": honest("a"), "b": stumbling}, config)
    federation.train()
    assert [line["replies"] for line in lines(run, "round")] == [1, 2]


def test_more_than_half_of_the_asked_sites_must_answer_unless_the_config_says_otherwise(tmp_path: Path) -> None:
    behaviours: dict[str, Behaviour] = {"a": honest("a"), "b": honest("b"), "c": failing, "d": failing}
    federation, _, _ = coordinator(tmp_path / "half", behaviours)
    with pytest.raises(FederationError, match="2 valid replies of the 3"):
        federation.train()
    federation, run, _ = coordinator(tmp_path / "two", behaviours, config_of(list(behaviours), rounds=1, min_replies=2))
    federation.train()
    assert lines(run, "round")[0]["replies"] == 2


def test_a_site_whose_budget_is_spent_is_not_asked_again_even_after_a_resume(tmp_path: Path) -> None:
    asked: list[int] = []

    def spent(instruction: Instruction) -> Reply:
        asked.append(instruction.round)
        return Reply("c", __version__, "budget_spent", "its privacy budget is spent")

    behaviours: dict[str, Behaviour] = {"a": honest("a"), "b": honest("b"), "c": spent}
    federation, run, _ = coordinator(tmp_path, behaviours, config_of(list(behaviours), rounds=3))
    federation.train()
    assert asked == [1]
    (tmp_path / "checkpoints" / "latest.json").unlink()
    coordinator(tmp_path, behaviours, config_of(list(behaviours), rounds=3))[0].train()
    assert asked == [1]
    assert summarise(run, "completed")["sites"]["c"]["failures"] == 0


def test_a_late_reply_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0}
    monkeypatch.setattr("simulations.grid.time.monotonic", lambda: clock["now"])

    def slow(instruction: Instruction) -> Reply:
        clock["now"] += 100.0
        reply = honest("b")(instruction)
        assert isinstance(reply, Reply)
        return reply

    config = config_of(["a", "b"], rounds=1, deadline_s=5, min_replies=1)
    federation, run, _ = coordinator(tmp_path, {"a": honest("a"), "b": slow}, config)
    federation.train()
    late = [line for line in lines(run, "site") if line["site"] == "b"]
    assert late[0]["status"] == "no reply"
    assert "within 5 s" in late[0]["reason"]


def test_participants_are_drawn_by_name_from_the_seed_whatever_the_node_ids(tmp_path: Path) -> None:
    names = ["a", "b", "c", "d", "e"]
    behaviours = {name: honest(name) for name in names}
    config = config_of(names, rounds=4, participants=3)
    asked = []
    for folder, order in (("one", names), ("two", names[::-1])):
        federation, run, _ = coordinator(tmp_path / folder, behaviours, config, order)
        federation.train()
        asked.append([(line["round"], line["site"]) for line in lines(run, "site")])
    assert asked[0] == asked[1]
    assert len({site for _, site in asked[0]}) > 3


def test_the_last_bits_do_not_depend_on_who_answers_first(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    behaviours = {name: honest(name, step) for name, step in zip(names, (0.1, 1e7, 0.3), strict=True)}
    results = []
    for folder, order in (("one", names), ("two", names[::-1])):
        config = config_of(names, rounds=2, norm_factor=1e9)
        federation, run, _ = coordinator(tmp_path / folder, behaviours, config, order)
        federation.train()
        results.append(final(tmp_path / folder, run.run_id)["affine/b"])
    assert torch.equal(*results)


def test_a_resumed_federation_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    stop = {"round": 3}

    config = config_of(
        names, rounds=5, min_replies=3, **{"strategy.name": "fedadam", "strategy.options": "{eta: 0.05}"}
    )
    behaviours: dict[str, Behaviour] = {
        "a": cut_off(honest("a", 0.1), stop),
        "b": honest("b", 0.2),
        "c": honest("c", 0.4),
    }
    broken, run, _ = coordinator(tmp_path / "broken", behaviours, config)
    with pytest.raises(FederationError):
        broken.train()
    stop["round"] = 99
    resumed, _, scorer = coordinator(tmp_path / "broken", behaviours, config)
    resumed.train()
    assert [round_ for round_, _ in scorer.rounds] == [3, 4, 5]
    unbroken, other, _ = coordinator(tmp_path / "whole", behaviours, config)
    unbroken.train()
    one, two = final(tmp_path / "broken", run.run_id), final(tmp_path / "whole", other.run_id)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["affine/a"], torch.zeros(3))


def test_evaluation_runs_before_the_first_round_every_n_rounds_and_in_full_after_the_last(tmp_path: Path) -> None:
    config = config_of(["a"], rounds=5).model_copy(update={})
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": 2})})
    federation, _, scorer = coordinator(tmp_path, {"a": honest("a")}, config)
    federation.train()
    assert scorer.rounds == [(0, False), (2, False), (4, False), (5, True)]
