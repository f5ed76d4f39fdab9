"""What a hospital does when a server asks for what it must not get: it answers with a code and trains nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict

from clients.app import build_app
from clients.site import open_site
from fed_fsad.errors import ConfigError
from fed_fsad.messages import Instruction, MalformedMessage, Reply
from tests.clients.test_train import DP, ask, instruction, opened
from tests.conftest import write_set


def real_site(folder: Path, policy: str) -> Context:
    """A hospital on disk whose site.yaml names everything relative to itself."""
    write_set(folder / "images", {"train/normal": 9})
    (folder / "policy.yaml").write_text(policy)
    (folder / "site.yaml").write_text(
        "name: st-anna\ndata: {kind: folder, root: images, task: oct}\npolicy: policy.yaml\nstate: state\n"
    )
    return Context(1, 2, {"site-config": str(folder / "site.yaml")}, RecordDict(), {})


PRIVATE = "{privacy: example, epsilon: 8, largest_rho: 20, methods: {d24fad: [affine]}}"


def test_a_real_site_under_dp_never_draws_its_noise_from_the_servers_seed(tmp_path: Path) -> None:
    _, config = opened(tmp_path / "run")
    context = real_site(tmp_path / "site", PRIVATE)
    reply = ask(context, instruction(config, insecure_noise_seed=7))
    assert (reply.status, reply.reason, reply.tensors) == ("refused", "its policy refuses (insecure noise)", {})
    assert not (tmp_path / "site" / "state" / "ledger.jsonl").exists()
    honest = ask(context, instruction(config, insecure_noise_seed=None))
    assert (honest.status, honest.unit) == ("ok", "image")
    assert '"secure":true' in (tmp_path / "site" / "state" / "ledger.jsonl").read_text()


def test_a_policy_that_is_tightened_is_obeyed_from_the_next_round_on(tmp_path: Path) -> None:
    _, config = opened(tmp_path / "run")
    context = real_site(tmp_path / "site", "privacy: off\n")
    assert ask(context, instruction(config)).status == "ok"
    (tmp_path / "site" / "policy.yaml").write_text("smallest_cohort: 9\n")
    assert ask(context, instruction(config)).reason == "its policy refuses (cohort too small)"


@pytest.mark.parametrize(
    "changes",
    [{"round": 0}, {"round": 4}, {"rounds": 0}, {"rounds": -1}, {"threads": 0}, {"cohort": 0}, {"seed": "x"},
     {"settings": "[]"}, {"settings": '{"other": {}}'}, {"settings": '{"d24fad": {"lr": -1}}'}],
    ids=str,
)  # fmt: skip
def test_an_instruction_that_makes_no_sense_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    context, config = opened(tmp_path, *DP)
    packed = instruction(config).pack()
    packed["instruction"] = ConfigRecord({**packed.config_records["instruction"], **changes})
    with pytest.raises(MalformedMessage):
        Instruction.unpack(packed)
    message = Message(packed, dst_node_id=2, message_type=MessageType.TRAIN)
    reply = Reply.unpack(build_app(lambda event: None)(message, context).content)
    assert (reply.status, reply.reason) == ("error", "it cannot read the server's message; compare the versions")
    assert not (tmp_path / "sites").exists(), "no ledger was even opened"


@pytest.mark.parametrize("damage", ["missing", "stretched", "extra", "all"])
def test_tensors_that_are_not_the_methods_are_refused_not_stretched(tmp_path: Path, damage: str) -> None:
    context, config = opened(tmp_path)
    sent = instruction(config)
    own = dict(sent.tensors["d24fad"])
    name = next(name for name, value in own.items() if value.numel() > 1)
    if damage == "missing":
        del own[name]
    elif damage == "stretched":
        own[name] = torch.zeros(1)
    elif damage == "extra":
        own[f"{name}x"] = torch.zeros(1)
    reply = ask(context, replace(sent, tensors={} if damage == "all" else {"d24fad": own}))
    assert (reply.status, "cannot read the server's message" in reply.reason) == ("error", True)


def test_who_a_node_is_is_answered_without_looking_at_its_images(tmp_path: Path) -> None:
    opened(tmp_path / "run")
    context = real_site(tmp_path / "site", "privacy: off\n")
    (tmp_path / "site" / "images").rename(tmp_path / "elsewhere")
    message = Message(RecordDict(), dst_node_id=2, message_type=MessageType.QUERY)
    reply = Reply.unpack(build_app(lambda event: None)(message, context).content)
    assert (reply.site, reply.status) == ("st-anna", "ok")


def test_a_node_without_a_hospital_says_how_many_there_are(tmp_path: Path) -> None:
    context, _ = opened(tmp_path)
    stranger = Context(1, 2, {"partition-id": 1}, RecordDict(), context.run_config)
    with pytest.raises(ConfigError, match="this is node 1 and the config has 1 hospitals"):
        open_site(stranger)
