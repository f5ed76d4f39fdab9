"""A federation under secure aggregation without detectors: the real coordinator, grid, apps and protocol; sites whose
training moves every tensor by a number of their own; and a network that a test can listen to and tamper with.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.app.user_config import UserConfig
from torch import Tensor

from clients.app import build_app
from clients.site import Site
from clients.train import Observer
from fed_fsad import __version__
from fed_fsad.config import Config, parse_config
from fed_fsad.messages import Instruction, Reply
from fed_fsad.methods.method import part_of
from fed_fsad.privacy.policy import Policy
from fed_fsad.rundir import RunDir
from fed_fsad.secagg import wire
from server.checkpoint import load_checkpoint
from server.rounds import Coordinator
from simulations.grid import FIRST_NODE, InProcessGrid
from tests.server.fakes import FakeScorer

Tamper = Callable[[str, str, Message], Message | None]
"""(site, step, the site's reply) to what reaches the server; None = nothing does."""


@dataclass
class Hospital:
    """step: what its training adds to everything. parts: what it trains; None = all."""

    step: float = 0.0
    parts: tuple[str, ...] | None = None
    policy: Policy = field(default_factory=Policy)


def config_of(sites: list[str], *overrides: str) -> Config:
    """A config of `sites` with secure aggregation on; the overrides come last."""
    hospitals = "".join(f"\n  - {{name: {site}, holds: {{organs: [oct]}}}}" for site in sites)
    methods = "methods: {d24fad: {teacher: {name: random}}}"
    text = f"name: fake\ndata: {{kind: phantoms}}\nhospitals:{hospitals}\n{methods}"
    chosen = ("federation.retries=0", "federation.wait_s=0.1", "federation.rounds=1", "privacy.secure_aggregation=on")
    return parse_config(text, "fake.yaml", [*chosen, *overrides])


class Network(InProcessGrid):
    """Keeps what the server sends and receives, and lets a test change the answers."""

    def __init__(self, sites: list[str]) -> None:
        nodes: list[UserConfig] = [{"partition-id": i} for i in range(len(sites))]
        super().__init__(build_app(lambda event: None), nodes, {})
        self.sites = sites
        self.tamper: Tamper = lambda site, step, reply: reply
        self.asked: list[tuple[str, str, Message]] = []
        self.seen: list[tuple[str, str, RecordDict]] = []

    def ask(self, message: Message) -> Message:
        """Deliver a message once more."""
        return super()._deliver(message)

    def step(self, step: str) -> dict[str, RecordDict]:
        """The last answers of one step, by site."""
        return {site: content for site, named, content in self.seen if named == step}

    def said(self, step: str) -> dict[str, ConfigRecord]:
        """The values in the last answers of one step, by site."""
        return {site: content.config_records[wire.KEY] for site, content in self.step(step).items()}

    def vectors(self) -> dict[str, np.ndarray[Any, np.dtype[np.uint32]]]:
        """The last masked vectors, by site."""
        found = {site: content.array_records.get(wire.VECTOR) for site, content in self.step("mask").items()}
        return {site: record[wire.VECTOR].numpy() for site, record in found.items() if record is not None}

    def _deliver(self, message: Message) -> Message:
        if wire.KEY not in message.content.config_records:
            return super()._deliver(message)
        site, step = self.sites[message.metadata.dst_node_id - FIRST_NODE], wire.step_of(message.content)
        self.asked.append((site, step, copy.deepcopy(message)))
        reply = self.tamper(site, step, super()._deliver(message))
        if reply is None:
            return Message(Error(5), reply_to=message)
        if reply.has_content():
            self.seen.append((site, step, copy.deepcopy(reply.content)))
        return reply


@dataclass
class Federation:
    """A federation ready to train. trained: (site, round, try) of every training, in their order."""

    network: Network
    coordinator: Coordinator
    run: RunDir
    trained: list[tuple[str, int, int]]

    def moved(self) -> dict[str, Tensor]:
        """The tensors after the last round."""
        found = load_checkpoint(self.run.checkpoints, self.run.run_id, FakeScorer().initial())
        assert found is not None
        return dict(found.tensors["d24fad"])

    def moved_nothing(self) -> bool:
        """Whether no round was ever finished."""
        return not self.run.checkpoints.exists()

    def lines(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.run.events() if event["kind"] == kind]

    def statuses(self) -> dict[str, tuple[str, str]]:
        """Status and reason of every site in its last line."""
        return {line["site"]: (line["status"], line["reason"]) for line in self.lines("site")}


def trained(site: Hospital, name: str, instruction: Instruction) -> Reply:
    """What the real `train_round` would answer."""
    tensors = {
        key: tensor + site.step for key, tensor in instruction.tensors["d24fad"].items()
        if site.parts is None or part_of(key) in site.parts
    }  # fmt: skip
    told = {"run": instruction.run, "round": instruction.round, "attempt": instruction.attempt}
    metrics = {"d24fad": {"loss": 0.125}}
    return Reply(name, __version__, tensors={"d24fad": tensors}, metrics=metrics, examples={"d24fad": 11}, **told)


def federation(
    folder: Path, monkeypatch: pytest.MonkeyPatch, hospitals: Mapping[str, Hospital], *overrides: str
) -> Federation:
    """The federation of `hospitals` in `folder`; their state lies there too."""
    names = list(hospitals)

    def name_of(context: Context) -> str:
        return names[int(context.node_config["partition-id"])]

    def opened(context: Context) -> Site:
        name = name_of(context)
        return Site(name, "train", (), hospitals[name].policy, folder / "state" / name, simulated=True)

    done: list[tuple[str, int, int]] = []

    def train_round(site: Site, instruction: Instruction, observer: Observer) -> Reply:
        done.append((site.name, instruction.round, instruction.attempt))
        return trained(hospitals[site.name], site.name, instruction)

    monkeypatch.setattr("clients.app.open_site", opened)
    monkeypatch.setattr("clients.app.site_name", name_of)
    monkeypatch.setattr("clients.app.site_role", lambda context: "train")
    monkeypatch.setattr("clients.secure.train_round", train_round)
    monkeypatch.setattr("clients.app.train_round", train_round)
    config = config_of(names, *overrides)
    network = Network(names)
    run = RunDir.open(folder / "run", config, "auto")
    return Federation(network, Coordinator(config, run, network, FakeScorer(), lambda event: None), run, done)


def steps(count: int) -> dict[str, Hospital]:
    """Sites a, b, c, … that move everything by 0.25, 0.5, 0.75, …"""
    return {chr(ord("a") + i): Hospital(0.25 * (i + 1)) for i in range(count)}


def mean(*values: float) -> Tensor:
    return torch.tensor(sum(values) / len(values))


def altered(reply: Message, **values: object) -> Message:
    """The reply with other values in its step."""
    reply.content.config_records[wire.KEY].update(values)
    return reply
