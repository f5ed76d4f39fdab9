"""What f bad sites of seven do to a federation, strategy by strategy, behind the server's guard.

    python -m benchmarks.bad_sites

Seven hospitals with phantoms of one organ each train SD-MAD with the embedded CLIP; the first f of them send bad
updates in every round. The real coordinator, guard, client app and in-process grid run; only what leaves a bad site is
changed. Robust strategies are told the true f. The table, Markdown, has a line per kind of update and f, and in every
cell: how far the last model is from the one of seven honest sites under fedavg, as a share of the way that one has gone
from the start (0 = the same model, 1 = as far off as the training had come), and in brackets the last model's P2 on
test images of all organs. No setting is tuned on these figures.
"""

import hashlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from flwr.app import Context, Message
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from torch import Tensor

from clients.app import build_app
from fed_fsad.config import Config, parse_config
from fed_fsad.messages import Instruction, Reply, Tensors
from fed_fsad.methods import build
from fed_fsad.methods.method import Method
from fed_fsad.residents import resident
from fed_fsad.rundir import Event, RunDir
from fed_fsad.seeds import reproducible, torch_stream
from server.checkpoint import load_checkpoint
from server.guard import update_norm
from server.rounds import Coordinator
from server.scoring import Scorer
from simulations.grid import InProcessGrid

METHOD = "sdmad"
SITES = 7
BAD = (2, 3)
SEED = 3
TEXT = f"""
name: bad-sites
seed: {SEED}
data: {{kind: phantoms, test_normal: 20, test_abnormal: 24, pool: 12, organs: [oct, liver_ct, fundus]}}
hospitals:
  - {{name: s0, holds: {{organs: [oct], style: 0, normal: 16, abnormal: 16}}}}
  - {{name: s1, holds: {{organs: [liver_ct], style: 1, normal: 16, abnormal: 16}}}}
  - {{name: s2, holds: {{organs: [fundus], style: 2, normal: 16, abnormal: 16}}}}
  - {{name: s3, holds: {{organs: [oct], style: 3, normal: 16, abnormal: 16}}}}
  - {{name: s4, holds: {{organs: [liver_ct], style: 0, normal: 16, abnormal: 16}}}}
  - {{name: s5, holds: {{organs: [fundus], style: 1, normal: 16, abnormal: 16}}}}
  - {{name: s6, holds: {{organs: [oct], style: 2, normal: 16, abnormal: 16}}}}
methods: {{sdmad: {{local_steps: 2, lr: 0.004, batch: 8}}}}
federation: {{rounds: 3}}
evaluation: {{shots: [4], draws: 1}}
arms: []
"""

Attack = Callable[[Tensors, Tensors, int], Mapping[str, Tensor]]
"""(trained, sent, round) to what leaves."""


def _flipped(trained: Tensors, sent: Tensors, round_: int) -> Mapping[str, Tensor]:
    return {name: sent[name] - (trained[name] - sent[name]) for name in sent}


def _tenfold(trained: Tensors, sent: Tensors, round_: int) -> Mapping[str, Tensor]:
    return {name: sent[name] - 10 * (trained[name] - sent[name]) for name in sent}


def _pushed(trained: Tensors, sent: Tensors, round_: int) -> Mapping[str, Tensor]:
    """All bad sites in one direction, the same in every round, ten times as long as an honest update."""
    return _step(trained, sent, 10.0, "direction")


def _noise(trained: Tensors, sent: Tensors, round_: int) -> Mapping[str, Tensor]:
    """As long as an honest update, but nothing was learned: what a site with shuffled labels sends at worst."""
    return _step(trained, sent, 1.0, f"noise {float(sum(tensor.double().sum() for tensor in trained.values()))}")


def _nan(trained: Tensors, sent: Tensors, round_: int) -> Mapping[str, Tensor]:
    return {name: torch.full_like(tensor, float("nan")) for name, tensor in sent.items()}


def _step(trained: Tensors, sent: Tensors, factor: float, stream: str) -> Mapping[str, Tensor]:
    generator = torch_stream(SEED, "bad sites", stream)
    drawn = {name: torch.randn(tensor.shape, generator=generator) for name, tensor in sorted(sent.items())}
    zero = {name: torch.zeros_like(tensor) for name, tensor in sent.items()}
    scale = factor * update_norm(trained, sent) / update_norm(drawn, zero)
    return {name: sent[name] + scale * drawn[name] for name in sent}


ATTACKS: Mapping[str, Attack] = {
    "sign flipped": _flipped,
    "sign flipped, ten times": _tenfold,
    "one direction, ten times": _pushed,
    "noise": _noise,
    "NaN": _nan,
}


def strategies(bad: int) -> Mapping[str, str]:
    """The `federation.strategy` of each column, told how many sites are bad."""
    most = f"{{num_malicious_nodes: {bad}, num_nodes_to_select: {SITES - bad}}}"
    return {
        "fedavg": "{name: fedavg}",
        "fedmedian": "{name: fedmedian}",
        "fedtrimmedavg": f"{{name: fedtrimmedavg, options: {{beta: {bad / SITES + 0.001:.3f}}}}}",
        "krum": f"{{name: krum, options: {{num_malicious_nodes: {bad}}}}}",
        "multikrum": f"{{name: multikrum, options: {most}}}",
    }


class LastOnly(Scorer):
    """Scores the last model, without baselines and pictures."""

    def evaluate(self, tensors: Mapping[str, Tensors], round_: int, final: bool) -> Iterator[Event]:
        """One event after the last round."""
        if final:
            yield self.score(METHOD, self.loaded(tensors[METHOD]), {"kind": "evaluation", "round": round_})

    def loaded(self, tensors: Tensors) -> Method:
        """The method with these tensors."""
        method = resident(METHOD, self._config.training[METHOD], SEED)
        method.load(tensors)
        return method


_known: dict[tuple[int, int, bytes], Reply] = {}
"""Honest replies by place, round and what was sent: the first round is the same in every run."""


def honest_reply(message: Message, context: Context) -> Reply:
    """What the real client app answers."""
    sent = Instruction.unpack(message.content)
    digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in sent.tensors[METHOD].values())).digest()
    key = int(context.node_config["partition-id"]), sent.round, digest
    if key not in _known:
        _known[key] = Reply.unpack(build_app(lambda event: None)(message, context).content)
    return replace(_known[key], run=sent.run, attempt=sent.attempt)


def spoiled(bad: int, attack: Attack) -> ClientApp:
    """The real client app, with what leaves the first `bad` nodes changed."""
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return build_app(lambda event: None)(message, context)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply, sent = honest_reply(message, context), Instruction.unpack(message.content)
        if int(context.node_config["partition-id"]) < bad:
            tensors = {name: attack(own, sent.tensors[name], sent.round) for name, own in reply.tensors.items()}
            reply = replace(reply, tensors=tensors)
        return Message(reply.pack(), reply_to=message)

    return app


@dataclass(frozen=True)
class Outcome:
    """P2 of the last model, the model, and how many updates the guard left out."""

    figure: float
    model: Tensors
    left_out: int


def federation(config: Config, bad: int, attack: Attack) -> Outcome:
    """A whole run with `bad` bad sites."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunDir.create(Path(folder) / "run", config)
        run_config: UserConfig = {"out": str(run.path)}
        nodes: list[UserConfig] = [{"partition-id": place} for place in range(SITES)]
        grid = InProcessGrid(spoiled(bad, attack), nodes, run_config)
        scorer = LastOnly(config, run)
        Coordinator(config, run, grid, scorer, lambda event: None).train()
        events = run.events()
        last = load_checkpoint(run.checkpoints, run.run_id, scorer.initial())
    assert last is not None
    (figure,) = [event["image_auroc"]["p2"] for event in events if event["kind"] == "evaluation"]
    left_out = sum(event["kind"] == "site" and event["status"] == "rejected" for event in events)
    return Outcome(figure, last.tensors[METHOD], left_out)


def main() -> None:
    """Print the table."""
    reproducible(1)
    columns = list(strategies(1))
    print(f"| what leaves a bad site | f of {SITES} | left out by the guard | {' | '.join(columns)} |")
    print(f"|---|---|---|{'---|' * len(columns)}")
    start = build(METHOD, parse_config(TEXT, "bad-sites").training[METHOD], SEED).snapshot()
    clean: Tensors | None = None
    rows = [("nothing bad", _flipped, 0), *((label, attack, bad) for bad in BAD for label, attack in ATTACKS.items())]
    for label, attack, bad in rows:
        cells, counts = [], set()
        for chosen in strategies(bad or BAD[0]).values():
            found = federation(parse_config(TEXT, "bad-sites", [f"federation.strategy={chosen}"]), bad, attack)
            clean = found.model if clean is None else clean  # the first run of all: fedavg, nothing bad
            off = update_norm(found.model, clean) / update_norm(clean, start)
            cells.append(f"{off:.2f} ({found.figure:.3f})")
            counts.add(found.left_out)
        said = " to ".join(map(str, sorted({min(counts), max(counts)})))
        print(f"| {label} | {bad} | {said} | {' | '.join(cells)} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
