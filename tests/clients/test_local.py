"""Parts that stay at a site: kept round by round, never sent, and never taken from the wrong round or run."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, Message, MessageType
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from clients.app import build_app
from clients.local import KEPT, LocalParts
from clients.received import load_received
from clients.site import open_site
from fed_fsad.config import Config
from fed_fsad.errors import CheckpointError
from fed_fsad.messages import Instruction, Reply, Tensors
from fed_fsad.methods.method import part_of, travelling
from fed_fsad.residents import resident, start_of
from tests.clients.test_train import opened as opened_with

START = {"context/tokens": torch.zeros(2, 3)}


def state(value: float) -> dict[str, Tensor]:
    return {"context/tokens": torch.full((2, 3), value)}


def value(tensors: Tensors) -> float:
    return float(tensors["context/tokens"][0, 0])


# ---- the files


def test_a_round_starts_from_what_the_last_one_before_it_left(tmp_path: Path) -> None:
    parts = LocalParts(tmp_path, "run", "sdmad")
    assert value(parts.before(1, START)) == 0
    for round_ in (1, 2, 5):
        parts.keep(round_, state(round_))
    assert [value(parts.before(round_, START)) for round_ in (1, 2, 3, 4, 5, 6, 9)] == [0, 1, 2, 2, 2, 5, 5]


def test_a_round_that_is_trained_again_ends_the_future_it_had(tmp_path: Path) -> None:
    parts = LocalParts(tmp_path, "run", "sdmad")
    for round_ in (1, 2, 3):
        parts.keep(round_, state(round_))
    parts.keep(2, state(20))
    assert [value(parts.before(round_, START)) for round_ in (2, 3, 4)] == [1, 20, 20]


@hypothesis_settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 9), max_size=12))
def test_whatever_is_asked_the_state_is_that_of_the_timeline_or_refused(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[int]
) -> None:
    parts = LocalParts(tmp_path_factory.mktemp("state"), "run", "sdmad")
    timeline: dict[int, float] = {}
    for step, round_ in enumerate(rounds, start=1):
        earlier = [known for known in timeline if known < round_]
        try:
            found = value(parts.before(round_, START))
        except CheckpointError:
            assert len([known for known in timeline if known >= round_]) >= KEPT, "only what was dropped is refused"
            return
        assert found == (timeline[max(earlier)] if earlier else 0)
        timeline = {known: kept for known, kept in timeline.items() if known < round_} | {round_: float(step)}
        parts.keep(round_, state(step))


def test_going_back_further_than_is_kept_is_refused_and_not_started_anew(tmp_path: Path) -> None:
    parts = LocalParts(tmp_path, "run", "sdmad")
    for round_ in range(1, KEPT + 3):
        parts.keep(round_, state(round_))
    assert len(list(tmp_path.rglob("*.safetensors"))) == KEPT
    with pytest.raises(CheckpointError, match=r"before it, and .* keeps them from round 3 on only; resume"):
        parts.before(2, START)


def test_runs_and_methods_lie_apart_and_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    for run, method in (("one", "sdmad"), ("one", "d24fad"), ("../../two", "sdmad")):
        LocalParts(tmp_path / "state", run, method).keep(1, state(len(run + method)))
    assert value(LocalParts(tmp_path / "state", "../../two", "sdmad").before(2, START)) == 14
    assert value(LocalParts(tmp_path / "state", "one", "d24fad").before(2, START)) == 9
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def foreign(path: Path) -> None:
    other = LocalParts(path.parents[3] / "other", "another run", "sdmad")
    other.keep(1, state(1))
    path.write_bytes(next((path.parents[3] / "other").rglob("*.safetensors")).read_bytes())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (flipped, "are damaged; restore it from a copy, or remove the folder"),
        (lambda path: path.write_bytes(path.read_bytes()[:40]), "cannot be read; restore"),
        (lambda path: path.write_bytes(b""), "cannot be read; restore"),
        (foreign, "are of another run; restore"),
    ],
)
def test_a_damaged_file_is_one_sentence_with_its_name(
    tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    parts = LocalParts(tmp_path / "state", "run", "sdmad")
    parts.keep(1, state(1))
    (path,) = (tmp_path / "state").rglob("*.safetensors")
    damage(path)
    with pytest.raises(CheckpointError, match=reason) as caught:
        parts.before(2, START)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_parts_of_another_shape_are_refused(tmp_path: Path) -> None:
    parts = LocalParts(tmp_path, "run", "sdmad")
    parts.keep(1, state(1))
    with pytest.raises(CheckpointError, match="other shapes than sdmad trains"):
        parts.before(2, {"context/tokens": torch.zeros(3, 3)})


# ---- at a site

TEXT = """
name: tiny
data: {kind: phantoms}
hospitals:
  - {name: north, holds: {organs: [oct], normal: 9, abnormal: 4}}
methods:
  sdmad: {model: random, local_steps: 2, batch: 4, local_parts: [context], text_bottleneck: 4, image_bottleneck: 4}
federation: {rounds: 3}
"""


opened = partial(opened_with, text=TEXT)


def instruction(config: Config, round_: int = 1, **changes: Any) -> Instruction:
    names = {name: resident(name, block, 0) for name, block in config.training.items()}
    for name, method in names.items():
        method.load(start_of(name, config.training[name], 0))
    tensors = {name: travelling(method.snapshot(), config.training[name]) for name, method in names.items()}
    settings = {"run": "run", "rounds": 3, "seed": 0, "threads": 1, "cohort": 4}
    return Instruction(round=round_, settings=config.training, tensors=tensors, **{**settings, **changes})


def ask(context: Context, sent: Instruction) -> Reply:
    message = Message(sent.pack(), dst_node_id=2, message_type=MessageType.TRAIN)
    return Reply.unpack(build_app(lambda event: None)(message, context).content)


def same(one: Tensors, two: Tensors) -> bool:
    return list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("local", ["context", "text_adapters"])
def test_a_local_part_moves_at_the_site_and_never_leaves(tmp_path: Path, local: str) -> None:
    context, config = opened(tmp_path, f"methods.sdmad.local_parts=[{local}]")
    sent = instruction(config)
    start = start_of("sdmad", config.training["sdmad"], 0)
    reply = ask(context, sent)
    shared = {"context", "text_adapters", "image_adapters"} - {local}
    assert {part_of(name) for name in sent.tensors["sdmad"]} == shared
    assert (reply.status, {part_of(name) for name in reply.tensors["sdmad"]}) == ("ok", shared)
    kept = LocalParts(open_site(context).state, "run", "sdmad").before(2, start)
    assert {part_of(name) for name in kept} == {local}
    assert not any(torch.equal(kept[name], start[name]) for name in kept)


def test_the_next_round_starts_from_the_sites_own_part_and_a_repeated_one_from_where_it_did(tmp_path: Path) -> None:
    context, config = opened(tmp_path)
    sent = instruction(config)
    first, second = ask(context, sent), ask(context, Instruction(**{**sent.__dict__, "round": 2}))
    again = [ask(context, Instruction(**{**sent.__dict__, "round": round_})) for round_ in (1, 2)]
    assert same(first.tensors["sdmad"], again[0].tensors["sdmad"])
    assert same(second.tensors["sdmad"], again[1].tensors["sdmad"])
    fresh, _ = opened(tmp_path / "fresh")
    unlike = ask(fresh, Instruction(**{**sent.__dict__, "round": 2}))
    assert not same(second.tensors["sdmad"], unlike.tensors["sdmad"]), "round 2 after round 1 is not round 2 alone"


def test_the_sites_own_part_is_what_its_evaluation_looks_through(tmp_path: Path) -> None:
    context, config = opened(tmp_path)
    sent = instruction(config)
    ask(context, sent)
    site, method = open_site(context), resident("sdmad", config.training["sdmad"], 0)
    start = start_of("sdmad", config.training["sdmad"], 0)
    kept = LocalParts(site.state, "run", "sdmad").before(2, start)
    load_received(site, method, sent, 1)
    assert torch.equal(method.trainable()["context/tokens"], start["context/tokens"])
    load_received(site, method, sent, 2)
    assert torch.equal(method.trainable()["context/tokens"], kept["context/tokens"])


def test_a_damaged_file_costs_the_round_and_says_so_without_its_path(tmp_path: Path) -> None:
    context, config = opened(tmp_path)
    sent = instruction(config)
    ask(context, sent)
    (path,) = (open_site(context).state / "local").rglob("*.safetensors")
    flipped(path)
    reply = ask(context, Instruction(**{**sent.__dict__, "round": 2}))
    assert (reply.status, reply.tensors) == ("error", {})
    assert reply.reason == "the parts it trains for itself cannot be used; the site's own log says why"


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("{privacy: example, epsilon: 8, largest_rho: 100}", "local parts under privacy"),
        ("{methods: {sdmad: [context]}}", "only local parts"),
    ],
)
def test_local_parts_that_privacy_or_the_policy_forbid_are_refused(tmp_path: Path, policy: str, reason: str) -> None:
    context, config = opened(tmp_path, f"hospitals.north.policy={policy}")
    reply = ask(context, instruction(config, insecure_noise_seed=7))
    assert (reply.status, reply.tensors) == ("refused", {})
    assert reason in reply.reason
    assert not (open_site(context).state / "local").exists()


def test_a_server_that_sends_a_local_part_is_not_understood(tmp_path: Path) -> None:
    context, config = opened(tmp_path)
    sent = instruction(config)
    whole = {"sdmad": resident("sdmad", config.training["sdmad"], 0).snapshot()}
    reply = ask(context, Instruction(**{**sent.__dict__, "tensors": whole}))
    assert reply.status == "error"


def test_sign_lists_that_are_not_the_servers_are_refused(tmp_path: Path) -> None:
    context, config = opened(tmp_path)
    method = resident("sdmad", config.training["sdmad"], 0)
    assert ask(context, instruction(config, texts={"sdmad": method.texts_id})).status == "ok"
    reply = ask(context, instruction(config, texts={"sdmad": "0" * 64}))
    assert (reply.status, reply.reason) == ("error", "its settings cannot be used; the site's own log says why")


def test_contexts_of_categories_that_a_site_lacks_are_not_sent(tmp_path: Path) -> None:
    context, config = opened(
        tmp_path,
        "methods.sdmad.local_parts=[]",
        "methods.sdmad.context=per_category",
        "hospitals.north.holds.abnormal=1",
    )
    reply = ask(context, instruction(config))
    contexts = [name for name in reply.tensors["sdmad"] if part_of(name) == "context"]
    assert len(contexts) == 2, "normal, and the one anomaly it has seen"
    assert "context/oct: normal/tokens" in contexts
