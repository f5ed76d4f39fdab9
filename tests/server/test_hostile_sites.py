"""What a broken or hostile site may send: it is refused or cut to size, and neither server, log nor screen suffers."""

import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fed_fsad import __version__
from fed_fsad.errors import FederationError
from fed_fsad.messages import LONGEST_TEXT, Instruction, MalformedMessage, Reply
from fed_fsad.progress import describe
from fed_fsad.summary import summarise
from server.roster import Roster
from simulations.grid import InProcessGrid
from tests.server.fakes import Behaviour, config_of, coordinator, honest, lines

ACCOUNT = {"epsilon": 1.0, "delta": 1e-5, "unit": "image"}


def record(**changes: Any) -> RecordDict:
    return RecordDict({"reply": ConfigRecord({"site": "x", "version": "1", "status": "ok", **changes})})


@pytest.mark.parametrize(
    "changes",
    [
        {"site": "x" * 65}, {"site": "x\n"}, {"site": "../x"}, {"site": b"x"}, {"status": ["ok"]},
        {"reason": 3}, {"reason": b"x"}, {"claim": ["a"]}, {"version": 1.0}, {"seconds": float("inf")},
        {**ACCOUNT, "epsilon": "1.0"}, {**ACCOUNT, "epsilon": float("nan")}, {**ACCOUNT, "epsilon": -1.0},
        {**ACCOUNT, "epsilon": True}, {**ACCOUNT, "delta": 1.0}, {**ACCOUNT, "delta": 0}, {**ACCOUNT, "unit": "nobody"},
        {"epsilon": 1.0}, {"epsilon": 1.0, "delta": 1e-5}, {"delta": 1e-5}, {"unit": "image"},
        {"round": -1}, {"round": True}, {"round": 1.5}, {"round": "2"}, {"attempt": 2**40}, {"run": 3},
    ],
    ids=str,
)  # fmt: skip
def test_a_reply_with_an_unfit_field_is_refused(changes: dict[str, Any]) -> None:
    assert Reply.unpack(record(**ACCOUNT)).epsilon == 1.0
    with pytest.raises(MalformedMessage) as refusal:
        Reply.unpack(record(**changes))
    assert len(str(refusal.value)) < 200


def test_text_comes_back_short_and_printable() -> None:
    reply = Reply.unpack(record(reason="\x1b[2J\x07all\nis  well\u2028" + "x" * 10**6, claim="c" * 10**6))
    assert reply.reason.startswith("[2J all is well xxx")
    assert reply.reason.isprintable()
    assert len(reply.reason) == len(reply.claim or "") == LONGEST_TEXT


def numpy_zip() -> bytes:
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.npy", b"")
    return archive.getvalue()


def saved(value: np.ndarray[Any, Any]) -> bytes:
    target = BytesIO()
    np.save(target, value, allow_pickle=True)
    return target.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"PK", numpy_zip(), saved(np.array(["text"])), saved(np.array([{}], dtype=object)), b"\x93NUMPY\x01\x00",
        saved(np.zeros(3)).replace(b"(3,)", b"(3, "), saved(np.zeros(3)).replace(b"(3,), }  ", b"(10**14,), }"),
        saved(np.zeros(3)).replace(b"(3,), }" + 20 * b" ", b"(99999999999999999999,), }"[:26] + b" "),
    ],
    ids=range(9),
)  # fmt: skip
def test_bytes_that_are_no_array_are_refused_whatever_numpy_makes_of_them(data: bytes) -> None:
    arrays = ArrayRecord({"affine/a": Array("float64", (3,), "numpy.ndarray", data)})
    with pytest.raises(MalformedMessage, match="cannot be read"):
        Reply.unpack(RecordDict({**record(), "d24fad/affine": arrays}))


@pytest.mark.parametrize("name", ["affine/" + "x" * 300, "affine/\x1b[2J"])
def test_names_of_arrays_are_short_and_printable(name: str) -> None:
    arrays = ArrayRecord({name: Array(np.zeros(1))})
    with pytest.raises(MalformedMessage, match="name among the arrays"):
        Reply.unpack(RecordDict({**record(), "d24fad/affine": arrays}))


@pytest.mark.parametrize(
    "figures",
    [{"x" * 100: 1.0}, {"a\nb": 1.0}, {f"f{i}": 1.0 for i in range(33)}, {"num-examples": 2.5}, {"num-examples": [3]}],
    ids=["long", "two lines", "many", "half an image", "a list"],
)
def test_figures_are_few_and_have_plain_names(figures: dict[str, Any]) -> None:
    with pytest.raises(MalformedMessage):
        Reply.unpack(RecordDict({**record(), "metrics.d24fad": MetricRecord(figures)}))


def test_figures_of_an_evaluation_are_held_to_the_same_and_never_mix_with_the_others() -> None:
    told = MetricRecord({"headline": 0.5, "low": float("nan")})
    reply = Reply.unpack(RecordDict({**record(), "evaluation.d24fad": told}))
    assert (reply.evaluation, reply.metrics) == ({"d24fad": {"headline": 0.5}}, {})
    with pytest.raises(MalformedMessage):
        Reply.unpack(RecordDict({**record(), "evaluation.d24fad": MetricRecord({"a\nb": 1.0})}))


def test_a_role_that_does_not_exist_is_that_of_everybody() -> None:
    assert [Reply.unpack(record(role=role)).role for role in ("boss", 3, "predict-only")] == [
        "train", "train", "predict-only",
    ]  # fmt: skip


def test_figures_that_are_not_finite_are_left_out() -> None:
    figures = MetricRecord({"loss": float("nan"), "cosine": 0.5, "size": 2**80, "list": [1.0]})
    assert Reply.unpack(RecordDict({**record(), "metrics.d24fad": figures})).metrics == {"d24fad": {"cosine": 0.5}}


def saying(site: str, **changes: Any) -> Behaviour:
    """An honest update with other fields beside it."""

    def answer(instruction: Instruction) -> Reply:
        reply = honest(site)(instruction)
        assert isinstance(reply, Reply)
        return Reply(**{**reply.__dict__, **changes})

    return answer


def test_a_reported_figure_cannot_pose_as_a_count_of_images(tmp_path: Path) -> None:
    lying = saying("a", metrics={"d24fad": {"examples": 1e9, "loss": 1.0}}, examples={})
    federation, run, _ = coordinator(tmp_path, {"a": lying}, config_of(["a"], rounds=1))
    federation.train()
    assert lines(run, "site")[0]["methods"] == {"d24fad": {"loss": 1.0}}


def test_what_a_rejected_private_update_cost_is_logged_and_summed_up(tmp_path: Path) -> None:
    broken = {"d24fad": {"affine/a": torch.full((3,), float("nan")), "affine/b": torch.zeros(2, 2)}}
    paid = saying("a", tensors=broken, examples={}, epsilon=2.0, delta=1e-5, unit="image", claim="c")
    behaviours: dict[str, Behaviour] = {"a": paid, "b": honest("b"), "c": honest("c")}
    federation, run, _ = coordinator(tmp_path, behaviours, config_of(list(behaviours), rounds=1))
    federation.train()
    line = lines(run, "site")[0]
    assert (line["status"], line["epsilon"], "methods" in line) == ("rejected", 2.0, False)
    assert summarise(run, "completed")["sites"]["a"]["epsilon"] == 2.0
    assert describe(line) == "  a: ε = 2.00 at δ = 1e-05"


class Nodes(InProcessGrid):
    """A grid whose nodes come and go."""

    def __init__(self, answers: Callable[[int], Reply | None], count: int) -> None:
        app = ClientApp()
        self.asked: list[int] = []
        self.listed = list(range(count))

        @app.query()
        def query(message: Message, context: Context) -> Message:
            place = int(context.node_config["partition-id"])
            self.asked.append(place)
            reply = answers(place)
            if reply is None:
                raise RuntimeError("dead")
            return Message(reply.pack(), reply_to=message)

        super().__init__(app, [{"partition-id": i} for i in range(count)], {})

    def get_node_ids(self) -> list[int]:
        return [node for place, node in enumerate(super().get_node_ids()) if place in self.listed]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    now = {"now": 1000.0}
    monkeypatch.setattr("server.roster.time.monotonic", lambda: now["now"])
    return now


def test_a_site_that_cannot_take_part_is_asked_again_after_a_while_and_warned_of_once(clock: dict[str, float]) -> None:
    state = {"ill": True}
    grid = Nodes(lambda _: Reply("a", __version__, *(("error", "its settings") if state["ill"] else ())), 1)
    warnings: list[str] = []
    roster = Roster(grid, ["a"], warnings.append)
    assert [list(roster.present()) for _ in range(3)] == [[], [], []]
    assert len(grid.asked) == 1, "not in every round"
    clock["now"] += 61
    assert list(roster.present()) == []
    assert (len(grid.asked), len(warnings)) == (2, 1)
    state["ill"] = False
    clock["now"] += 61
    assert list(roster.present()) == ["a"]
    clock["now"] += 61
    roster.present()
    assert len(grid.asked) == 3, "a known site is not asked any more"


def test_a_node_that_went_and_came_back_is_asked_at_once(clock: dict[str, float]) -> None:
    grid = Nodes(lambda _: Reply("a", __version__), 1)
    roster = Roster(grid, ["a"], lambda text: None)
    assert list(roster.present()) == ["a"]
    grid.listed = []
    assert roster.present() == {}
    grid.listed = [0]
    assert list(roster.present()) == ["a"]
    assert len(grid.asked) == 2


def test_a_restarted_site_replaces_its_dead_node_but_two_live_ones_stop_the_run(clock: dict[str, float]) -> None:
    dead: set[int] = set()
    grid = Nodes(lambda place: None if place in dead else Reply("a", __version__), 2)
    grid.listed = [0]
    roster = Roster(grid, ["a"], lambda text: None)
    before = roster.present()["a"]
    dead.add(0)
    grid.listed = [0, 1]
    assert roster.present()["a"] == before + 1
    dead.clear()
    clock["now"] += 61
    with pytest.raises(FederationError, match="two sites call themselves 'a'"):
        roster.present()


def test_the_run_waits_for_all_sites_and_then_goes_on_with_enough() -> None:
    grid = Nodes(lambda place: Reply("abc"[place], __version__), 3)
    grid.listed = [0, 1]
    warnings: list[str] = []
    roster = Roster(grid, ["a", "b", "c"], warnings.append)
    assert list(roster.wait_for(2, 0.05, lambda site: True, hoped=3)) == ["a", "b"]
    assert warnings == ["after 0.05 s the run goes on without c, who may still join"]
    grid.listed = [0, 1, 2]
    assert list(roster.wait_for(2, 0.05, lambda site: True, hoped=3)) == ["a", "b", "c"]


def test_sites_that_are_not_connected_count_towards_the_majority(tmp_path: Path) -> None:
    config = config_of(["a", "b", "c", "d"], rounds=1)
    with pytest.raises(FederationError, match="only 2 of the 3 sites a round needs are there, missing: c, d"):
        coordinator(tmp_path, {"a": honest("a"), "b": honest("b")}, config)[0].train()


def test_a_run_that_its_spent_sites_leave_too_small_says_so(tmp_path: Path) -> None:
    spent = Reply("b", __version__, "budget_spent", "its privacy budget is spent")
    behaviours: dict[str, Behaviour] = {"a": honest("a"), "b": lambda _: spent}
    config = config_of(list(behaviours), rounds=1, min_replies=2, retries=1)
    with pytest.raises(FederationError, match=r"1 valid replies of the 2 .*\(b: its privacy budget is spent\)"):
        coordinator(tmp_path, behaviours, config)[0].train()


def test_an_aggregate_that_is_not_finite_stops_the_run_before_the_checkpoint(tmp_path: Path) -> None:
    config = config_of(["a"], rounds=1, **{"strategy.name": "fedadam", "strategy.options": "{eta: 1.0e300}"})
    with pytest.raises(FederationError, match=r"aggregating d24fad made affine/a NaN or infinite"):
        coordinator(tmp_path, {"a": honest("a")}, config)[0].train()
    assert not (tmp_path / "checkpoints").exists()
