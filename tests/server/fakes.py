"""A federation without detectors: the real coordinator, grid and messages, with sites that answer what a test wants."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from torch import Tensor

from fed_fsad import __version__
from fed_fsad.config import Config, parse_config
from fed_fsad.data.settings import Role
from fed_fsad.messages import Instruction, Reply, Tensors
from fed_fsad.rundir import Event, RunDir
from server.rounds import Coordinator
from simulations.grid import InProcessGrid

Behaviour = Callable[[Instruction], "Reply | RecordDict"]


def honest(site: str, step: float = 1.0, examples: int = 10) -> Behaviour:
    """A site that adds `step` (times the round) to everything."""

    def answer(instruction: Instruction) -> Reply:
        moved = {
            method: {name: tensor + step * instruction.round for name, tensor in own.items()}
            for method, own in instruction.tensors.items()
        }
        return Reply(site, __version__, tensors=moved, examples=dict.fromkeys(moved, examples))

    return answer


def cut_off(behaviour: Behaviour, stop: dict[str, int]) -> Behaviour:
    """A site that answers until round stop["round"], which a test may change."""

    def answer(instruction: Instruction) -> Reply | RecordDict:
        if instruction.round >= stop["round"]:
            raise RuntimeError("power cut")
        return behaviour(instruction)

    return answer


def altered(site: str, change: Callable[[dict[str, Tensor]], None]) -> Behaviour:
    """An honest site whose d24fad tensors are tampered with by `change`."""

    def answer(instruction: Instruction) -> Reply:
        reply = honest(site)(instruction)
        assert isinstance(reply, Reply)
        tensors = {method: dict(own) for method, own in reply.tensors.items()}
        change(tensors["d24fad"])
        return Reply(site, __version__, tensors=tensors, examples=reply.examples)

    return answer


def failing(instruction: Instruction) -> Reply:
    """A site whose app raises."""
    raise RuntimeError("secret path /data/patients/jane.png")


class FakeScorer:
    """Starts from fixed tensors and finds that every model scores its own mean."""

    def __init__(self) -> None:
        self.rounds: list[tuple[int, bool]] = []
        self.texts: dict[str, str] = {}

    def initial(self) -> dict[str, dict[str, Tensor]]:
        return {"d24fad": {"affine/a": torch.zeros(3), "affine/b": torch.zeros(2, 2), "kernels/c": torch.zeros(())}}

    def evaluate(self, tensors: Mapping[str, Tensors], round_: int, final: bool) -> Iterator[Event]:
        self.rounds.append((round_, final))
        figure = float(tensors["d24fad"]["affine/a"].mean())
        blank = ("interval", "pixel_auroc", "pixel_aupro", "image_auroc_sd", "average_precision", "left_out", "extra")
        yield {
            **dict.fromkeys(blank),
            "kind": "evaluation",
            "round": round_,
            "final": final,
            "method": "d24fad",
            "headline": figure,
            "headline_name": "mean",
            "image_auroc": {"4": figure},
        }


def config_of(sites: list[str], **federation: Any) -> Config:
    hospitals = "".join(f"\n  - {{name: {site}, holds: {{organs: [oct]}}}}" for site in sites)
    methods = "methods: {d24fad: {teacher: {name: random}}}"
    text = f"name: fake\ndata: {{kind: phantoms}}\nhospitals:{hospitals}\n{methods}"
    overrides = [f"federation.{key}={value}" for key, value in {"retries": 0, "wait_s": 0.1, **federation}.items()]
    return parse_config(text, "fake.yaml", overrides)


def answering(reply: Reply | RecordDict) -> Behaviour:
    """A site that answers the same whatever it is asked."""
    return lambda instruction: reply


def scoring(site: str, headline: float = 0.75, **more: float) -> Behaviour:
    """A site that only sends figures of its own evaluation."""
    figures = {"d24fad": {"headline": headline, "low": 0.5, "high": 1.0, "shots": 4.0, "images": 9.0, **more}}

    def answer(instruction: Instruction) -> Reply:
        assert instruction.evaluation is not None
        return Reply(site, __version__, role="predict-only", evaluation=figures)

    return answer


def stamped(reply: Reply, instruction: Instruction) -> Reply:
    """The reply with what it answers, as every site of ours says it, unless it says otherwise."""
    if reply.run:
        return reply
    return replace(reply, run=instruction.run, round=instruction.round, attempt=instruction.attempt)


def client_of(
    behaviours: Mapping[str, Behaviour], order: list[str], watchers: Mapping[str, Behaviour] | None = None
) -> ClientApp:
    """A ClientApp in which node i answers as site order[i] behaves; `watchers` say how sites answer to evaluations,
    and those of them that have no behaviour are predict-only.
    """
    app, scorers = ClientApp(), watchers or {}

    def site_of(context: Context) -> str:
        return order[int(context.node_config["partition-id"])]

    @app.query()
    def query(message: Message, context: Context) -> Message:
        site = site_of(context)
        role: Role = "train" if site in behaviours else "predict-only"
        return Message(Reply(site, __version__, role=role).pack(), reply_to=message)

    def reply_to(message: Message, behaviour: Behaviour) -> Message:
        instruction = Instruction.unpack(message.content)
        answer = behaviour(instruction)
        packed = stamped(answer, instruction).pack() if isinstance(answer, Reply) else answer
        return Message(packed, reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return reply_to(message, behaviours[site_of(context)])

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return reply_to(message, scorers[site_of(context)])

    return app


def coordinator(
    folder: Path,
    behaviours: Mapping[str, Behaviour],
    config: Config | None = None,
    order: list[str] | None = None,
    watchers: Mapping[str, Behaviour] | None = None,
    grid: Callable[[ClientApp, list[UserConfig]], InProcessGrid] = lambda app, nodes: InProcessGrid(app, nodes, {}),
) -> tuple[Coordinator, RunDir, FakeScorer]:
    """A coordinator ready to train; resumes when `folder` holds a run."""
    order = order or list({**behaviours, **(watchers or {})})
    config = config or config_of(order)
    run = RunDir.open(folder, config, "auto")
    nodes: list[UserConfig] = [{"partition-id": i} for i in range(len(order))]
    scorer = FakeScorer()
    built = grid(client_of(behaviours, order, watchers), nodes)
    return Coordinator(config, run, built, scorer, lambda event: None), run, scorer


def lines(run: RunDir, kind: str) -> list[dict[str, Any]]:
    """The events of one kind."""
    return [event for event in run.events() if event["kind"] == kind]
