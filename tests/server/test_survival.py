"""Rounds that survive: sites that are late, leave, join, misbehave again and again, or only watch."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from flwr.app import Error, Message
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp

from fed_fsad import __version__
from fed_fsad.errors import FederationError
from fed_fsad.messages import Instruction, Reply
from fed_fsad.summary import summarise
from server.attempts import NODE_GONE
from server.checkpoint import load_checkpoint
from simulations.grid import FIRST_NODE, InProcessGrid
from tests.server.fakes import (
    Behaviour,
    FakeScorer,
    altered,
    answering,
    config_of,
    coordinator,
    failing,
    honest,
    lines,
    scoring,
)


def final(folder: Path, run_id: str) -> torch.Tensor:
    found = load_checkpoint(folder / "checkpoints", run_id, FakeScorer().initial())
    assert found is not None
    return found.tensors["d24fad"]["kernels/c"]


def nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors["affine/a"] = torch.full((3,), float("nan"))


def worded(found: list[dict[str, object]]) -> list[tuple[object, ...]]:
    return [(line["round"], line["site"], line["status"]) for line in found]


class Clock:
    """A grid whose sites take the seconds that a test says, round by round."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("simulations.grid.time.monotonic", lambda: self.now)

    def slow(self, site: str, rounds: Iterable[int], step: float = 1.0) -> Behaviour:
        """A site that misses the deadline in these rounds."""

        def answer(instruction: Instruction) -> Reply:
            if instruction.round in rounds:
                self.now += 100.0
            reply = honest(site, step)(instruction)
            assert isinstance(reply, Reply)
            return reply

        return answer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_late_update_is_used_once_in_the_next_round_as_the_step_it_was(tmp_path: Path, clock: Clock) -> None:
    behaviours: dict[str, Behaviour] = {"a": honest("a", 1.0), "b": clock.slow("b", {1}, 4.0)}
    config = config_of(["a", "b"], rounds=3, deadline_s=5, min_replies=1, late="use")
    federation, run, _ = coordinator(tmp_path, behaviours, config)
    federation.train()
    # 1: a alone, +1. 2: a brings +2, b the +4 of round 1; b is busy and not asked. 3: a +3, b +12.
    assert float(final(tmp_path, run.run_id)) == pytest.approx(1 + (2 + 4) / 2 + (3 + 12) / 2)
    of_b = [line for line in lines(run, "site") if line["site"] == "b"]
    assert worded(of_b) == [(1, "b", "no reply"), (2, "b", "ok"), (3, "b", "ok")]
    assert [line.get("trained_for") for line in of_b] == [None, 1, None]
    assert [line["replies"] for line in lines(run, "round")] == [1, 2, 2]


def test_a_late_update_is_dropped_by_default_and_its_site_asked_anew(tmp_path: Path, clock: Clock) -> None:
    behaviours: dict[str, Behaviour] = {"a": honest("a", 1.0), "b": clock.slow("b", {1}, 4.0)}
    federation, run, _ = coordinator(tmp_path, behaviours, config_of(["a", "b"], rounds=2, deadline_s=5, min_replies=1))
    federation.train()
    assert float(final(tmp_path, run.run_id)) == pytest.approx(1 + (2 + 8) / 2)


def test_a_late_update_of_a_repeated_round_enters_as_it_is_to_the_last_bit(tmp_path: Path, clock: Clock) -> None:
    behaviours: dict[str, Behaviour] = {"a": honest("a", 0.1), "b": clock.slow("b", {1}, 0.3)}
    config = config_of(["a", "b"], rounds=1, deadline_s=5, min_replies=2, retries=1, late="use")
    federation, run, _ = coordinator(tmp_path / "late", behaviours, config)
    federation.train()
    on_time, other, _ = coordinator(
        tmp_path / "on time", {"a": honest("a", 0.1), "b": honest("b", 0.3)}, config_of(["a", "b"], rounds=1)
    )
    on_time.train()
    assert torch.equal(final(tmp_path / "late", run.run_id), final(tmp_path / "on time", other.run_id))


def test_a_late_update_passes_the_same_guard(tmp_path: Path, clock: Clock) -> None:
    def late_and_bad(instruction: Instruction) -> Reply:
        clock.slow("b", {1})(instruction)
        reply = altered("b", nan)(instruction)
        assert isinstance(reply, Reply)
        return reply

    config = config_of(["a", "b"], rounds=2, deadline_s=5, min_replies=1, late="use")
    federation, run, _ = coordinator(tmp_path, {"a": honest("a"), "b": late_and_bad}, config)
    federation.train()
    second = [line for line in lines(run, "site") if line["site"] == "b"][1]
    assert (second["status"], second["trained_for"]) == ("rejected", 1)
    assert "NaN" in second["reason"]
    assert float(final(tmp_path, run.run_id)) == 3.0


class Flaky(InProcessGrid):
    """A grid whose nodes are listed only in the rounds that a test says; a node that is gone answers with an error."""

    def __init__(self, app: ClientApp, nodes: list[UserConfig]) -> None:
        super().__init__(app, nodes, {})
        self.listed = set(super().get_node_ids())
        self.gone: set[int] = set()

    def get_node_ids(self) -> list[int]:
        return [node for node in super().get_node_ids() if node in self.listed]

    def _deliver(self, message: Message) -> Message:
        if message.metadata.dst_node_id in self.gone:
            return Message(Error(NODE_GONE, "node unavailable"), reply_to=message)
        return super()._deliver(message)


def flaky() -> tuple[list[Flaky], "type[Flaky]"]:
    made: list[Flaky] = []

    class Kept(Flaky):
        def __init__(self, app: ClientApp, nodes: list[UserConfig]) -> None:
            super().__init__(app, nodes)
            made.append(self)

    return made, Kept


def test_sites_join_and_leave_between_rounds(tmp_path: Path) -> None:
    made, grid = flaky()

    def leader(instruction: Instruction) -> Reply:
        """While round r is trained, the nodes of round r + 1 change."""
        there = {1: {0, 1}, 2: {0, 2}, 3: {0, 1, 2}}.get(instruction.round, {0, 1, 2})
        made[0].listed = {FIRST_NODE + place for place in there}
        reply = honest("a")(instruction)
        assert isinstance(reply, Reply)
        return reply

    behaviours: dict[str, Behaviour] = {"a": leader, "b": honest("b"), "c": honest("c")}
    federation, run, _ = coordinator(tmp_path, behaviours, config_of(list(behaviours), rounds=4), grid=grid)
    federation.train()
    asked: dict[int, list[str]] = {}
    for line in lines(run, "site"):
        asked.setdefault(line["round"], []).append(line["site"])
    assert asked == {1: ["a", "b", "c"], 2: ["a", "b"], 3: ["a", "c"], 4: ["a", "b", "c"]}
    assert all(line["status"] == "ok" for line in lines(run, "site"))


def test_a_node_that_goes_away_in_a_round_is_said_so_at_once(tmp_path: Path) -> None:
    made, grid = flaky()

    def first(instruction: Instruction) -> Reply:
        made[0].gone = {FIRST_NODE + 1}
        reply = honest("a")(instruction)
        assert isinstance(reply, Reply)
        return reply

    behaviours: dict[str, Behaviour] = {"a": first, "b": honest("b"), "c": honest("c")}
    federation, run, _ = coordinator(tmp_path, behaviours, config_of(list(behaviours), rounds=1), grid=grid)
    federation.train()
    (line,) = [line for line in lines(run, "site") if line["site"] == "b"]
    assert (line["status"], "went away" in line["reason"]) == ("no reply", True)


def test_a_site_is_suspended_after_n_rejected_updates_in_a_row_and_said_so(tmp_path: Path) -> None:
    asked: list[int] = []

    def bad(instruction: Instruction) -> Reply:
        asked.append(instruction.round)
        reply = (honest if instruction.round == 2 else lambda site: altered(site, nan))("bad")(instruction)
        assert isinstance(reply, Reply)
        return reply

    behaviours: dict[str, Behaviour] = {"a": honest("a"), "b": honest("b"), "bad": bad}
    config = config_of(list(behaviours), rounds=6, suspend_after=2)
    federation, run, _ = coordinator(tmp_path, behaviours, config)
    federation.train()
    assert asked == [1, 2, 3, 4], "a good update in between starts the count anew"
    summary = summarise(run, "completed")
    assert "suspended for the rest of the run after 2 rejected updates in a row" in summary["sites"]["bad"]["suspended"]
    assert "NaN" in summary["sites"]["bad"]["suspended"]
    assert summary["sites"]["bad"]["faults"] == {"rejected": 3}
    assert summary["sites"]["a"]["suspended"] is None
    assert any("bad is suspended" in text for text in summary["warnings"])


def test_a_suspension_and_half_a_count_survive_a_restart(tmp_path: Path) -> None:
    asked: list[tuple[str, int]] = []
    power = {"on until": 3}

    def spoiling(site: str, first: int) -> Behaviour:
        def answer(instruction: Instruction) -> Reply:
            asked.append((site, instruction.round))
            good = instruction.round < first
            reply = (honest(site) if good else altered(site, nan))(instruction)
            assert isinstance(reply, Reply)
            return reply

        return answer

    def leader(instruction: Instruction) -> Reply:
        if instruction.round > power["on until"]:
            raise KeyboardInterrupt
        reply = honest("a")(instruction)
        assert isinstance(reply, Reply)
        return reply

    behaviours = {"a": leader, "b": spoiling("b", 1), "c": spoiling("c", 3), "d": honest("d"), "e": honest("e")}
    config = config_of(list(behaviours), rounds=6, suspend_after=2)
    with pytest.raises(KeyboardInterrupt):
        coordinator(tmp_path, behaviours, config)[0].train()
    power["on until"] = 99
    resumed, run, _ = coordinator(tmp_path, behaviours, config)
    resumed.train()
    assert [round_ for site, round_ in asked if site == "b"] == [1, 2]
    assert [round_ for site, round_ in asked if site == "c"][-1] == 4, "one strike before the restart, one after"
    assert any("b stays suspended" in line["text"] for line in lines(run, "warning"))
    assert set(summarise(run, "completed")["sites"]["b"]["faults"]) == {"rejected"}


def test_silence_errors_and_refusals_are_failures_but_no_bad_updates(tmp_path: Path) -> None:
    refusing = answering(Reply("c", __version__, "refused", "its policy refuses"))
    behaviours: dict[str, Behaviour] = {"a": honest("a"), "b": failing, "c": refusing, "d": honest("d")}
    config = config_of(list(behaviours), rounds=4, suspend_after=1, min_replies=2)
    federation, run, _ = coordinator(tmp_path, behaviours, config)
    federation.train()
    sites = summarise(run, "completed")["sites"]
    assert (sites["b"]["faults"], sites["c"]["faults"]) == ({"error": 4}, {"refused": 4})
    assert (sites["b"]["suspended"], sites["c"]["suspended"]) == (None, None)


def test_suspended_sites_do_not_count_towards_the_majority(tmp_path: Path) -> None:
    behaviours: dict[str, Behaviour] = {"a": honest("a"), "b": altered("b", nan), "c": altered("c", nan)}
    config = config_of(list(behaviours), rounds=2, suspend_after=1, retries=1)
    federation, run, _ = coordinator(tmp_path, behaviours, config)
    federation.train()
    assert [(line["round"], line["complete"]) for line in lines(run, "round")] == [(1, False), (1, True), (2, True)]


def replayed(site: str, **changes: object) -> Behaviour:
    def answer(instruction: Instruction) -> Reply:
        reply = honest(site)(instruction)
        assert isinstance(reply, Reply)
        echo = {"run": instruction.run, "round": instruction.round, "attempt": instruction.attempt, **changes}
        return Reply(site, __version__, tensors=reply.tensors, examples=reply.examples, **echo)  # type: ignore[arg-type]

    return answer


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"round": 1}, "it answers round 1, try 1, but was asked for round 2, try 1: an old reply was sent again"),
        ({"attempt": 3}, "it answers round 2, try 3"),
        ({"run": "another"}, "a reply to another run was sent again"),
    ],
)
def test_an_old_reply_is_rejected_by_name(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    behaviours: dict[str, Behaviour] = {"a": honest("a"), "b": honest("b"), "bad": replayed("bad", **changes)}
    federation, run, _ = coordinator(tmp_path, behaviours, config_of(list(behaviours), rounds=2))
    federation.train()
    second = [line for line in lines(run, "site") if line["site"] == "bad"][1]
    assert second["status"] == "rejected"
    assert words in second["reason"]
    assert float(final(tmp_path, run.run_id)) == 3.0


def test_every_rejection_is_counted_per_site_also_those_of_repeated_rounds(tmp_path: Path) -> None:
    behaviours: dict[str, Behaviour] = {"a": honest("a"), "b": altered("b", nan)}
    config = config_of(list(behaviours), rounds=1, min_replies=2, retries=2, suspend_after=9)
    with pytest.raises(FederationError):
        coordinator(tmp_path, behaviours, config)[0].train()
    _, run, _ = coordinator(tmp_path, behaviours, config)
    assert summarise(run, "failed")["sites"]["b"]["faults"] == {"rejected": 3}


def test_bytes_are_counted_per_site_and_add_up(tmp_path: Path) -> None:
    behaviours: dict[str, Behaviour] = {"a": honest("a"), "b": failing, "c": honest("c")}
    federation, run, _ = coordinator(tmp_path, behaviours, config_of(list(behaviours), rounds=1))
    federation.train()
    of = {line["site"]: line for line in lines(run, "site")}
    (whole,) = lines(run, "round")
    assert (of["b"]["bytes_up"], of["a"]["bytes_down"]) == (0, of["b"]["bytes_down"])
    assert of["a"]["bytes_up"] == of["c"]["bytes_up"] > 0
    for way in ("bytes_up", "bytes_down"):
        assert whole[way] == sum(line[way] for line in of.values())
    summed = summarise(run, "completed")["sites"]["a"]["bytes"]
    assert summed == {"up": of["a"]["bytes_up"], "down": of["a"]["bytes_down"]}


# ---- sites that only watch, and what sites say of the model


def test_a_predict_only_site_scores_every_model_and_never_counts_as_a_trainer(tmp_path: Path) -> None:
    behaviours: dict[str, Behaviour] = {"a": honest("a"), "b": failing}
    federation, run, _ = coordinator(
        tmp_path,
        behaviours,
        config_of(["a", "b", "eye"], rounds=2, min_replies=1),
        watchers={"eye": scoring("eye", 0.75)},
    )
    federation.train()
    told = lines(run, "site_evaluation")
    assert [(line["round"], line["site"], line["headline"]) for line in told] == [
        (0, "eye", 0.75), (1, "eye", 0.75), (2, "eye", 0.75),
    ]  # fmt: skip
    assert (told[0]["interval"], told[0]["shots"], told[0]["images"]) == ([0.5, 1.0], 4, 9)
    assert [line["replies"] for line in lines(run, "round")] == [1, 1]
    assert float(final(tmp_path, run.run_id)) == 3.0
    block = summarise(run, "completed")["sites"]["eye"]
    assert block["evaluation"] == {
        "d24fad": {"round": 2, "headline": 0.75, "interval": [0.5, 1.0], "shots": 4, "images": 9}
    }


def test_a_watcher_alone_is_no_round(tmp_path: Path) -> None:
    config = config_of(["a", "eye"], rounds=1, min_replies=1)
    federation, _, _ = coordinator(tmp_path, {"a": failing}, config, watchers={"eye": scoring("eye")})
    with pytest.raises(FederationError, match="round 1 got 0 valid replies of the 1"):
        federation.train()


@pytest.mark.parametrize(
    ("watcher", "words"),
    [
        (scoring("eye", 1.5), "left out: d24fad: a figure is not between 0 and 1"),
        (scoring("eye", images=0.0), "left out: d24fad: a count is not"),
        (scoring("eye", patients=3.0), "left out: d24fad: they are not the figures"),
        (failing, "eye did not score the last model: its app failed"),
        (honest("eye"), "eye did not score the last model: it was only asked to evaluate and sends tensors"),
    ],
)
def test_what_goes_wrong_in_an_evaluation_is_named_and_costs_no_round(
    tmp_path: Path, watcher: Behaviour, words: str
) -> None:
    config = config_of(["a", "eye"], rounds=1, min_replies=1)
    federation, run, _ = coordinator(tmp_path, {"a": honest("a")}, config, watchers={"eye": watcher})
    federation.train()
    assert lines(run, "site_evaluation") == []
    assert any(words in line["text"] for line in lines(run, "warning")), lines(run, "warning")
    assert float(final(tmp_path, run.run_id)) == 1.0


def test_a_site_that_trains_tells_its_figures_in_the_same_reply_and_the_last_ones_at_the_end(tmp_path: Path) -> None:
    figures = {"d24fad": {"headline": 0.5, "shots": 2.0, "images": 4.0}}

    def telling(instruction: Instruction) -> Reply:
        reply = honest("a")(instruction)
        assert isinstance(reply, Reply)
        assert (instruction.evaluation is not None) == (instruction.round in (1, 3))
        own = figures if instruction.evaluation else {}
        return Reply("a", __version__, tensors=reply.tensors, examples=reply.examples, evaluation=own)

    config = config_of(["a", "b"], rounds=4)
    config = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"every": 2})})
    last = answering(Reply("a", __version__, evaluation=figures))
    behaviours: dict[str, Behaviour] = {"a": telling, "b": honest("b")}
    asked: list[str] = []

    def counted(instruction: Instruction) -> Reply:
        asked.append("a")
        reply = last(instruction)
        assert isinstance(reply, Reply)
        return Reply("a", __version__, evaluation=reply.evaluation)

    federation, run, _ = coordinator(tmp_path, behaviours, config, watchers={"a": counted})
    federation.train()
    told = lines(run, "site_evaluation")
    assert [(line["round"], line["interval"]) for line in told] == [(0, None), (2, None), (4, None)]
    assert asked == ["a"], "the others said nothing before and are not asked at the end"
    again, _, _ = coordinator(tmp_path, behaviours, config, watchers={"a": counted})
    again.train()
    assert asked == ["a"], "a finished run is not scored twice"
