"""The rounds of a federation: ask, check, aggregate, evaluate, keep."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message, MessageType
from flwr.serverapp import Grid
from torch import Tensor

from fed_fsad import __version__
from fed_fsad.config import Config
from fed_fsad.errors import FederationError
from fed_fsad.messages import Instruction, MalformedMessage, Reply, wire_bytes
from fed_fsad.rundir import Event, RunDir
from fed_fsad.seeds import numpy_stream
from server.aggregate import Aggregator
from server.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from server.guard import fault, outsized
from server.roster import Roster
from server.scoring import Scorer

Observer = Callable[[Event], None]


@dataclass
class _Attempt:
    """One try at a round: what was sent, who answered what. up, down: bytes of tensors."""

    asked: tuple[str, ...]
    heard: dict[str, Reply] = field(default_factory=dict)
    """By site: every update that could be read, also those with a fault."""
    faults: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By site: (status, reason) of every site whose answer does not enter the model."""
    up: int = 0
    down: int = 0

    @property
    def valid(self) -> list[Reply]:
        """The updates that enter the model, by site name."""
        return [self.heard[site] for site in sorted(self.heard) if site not in self.faults]


class Coordinator:
    """Runs a federation from its last checkpoint to its last round; everything that happens is logged as it happens."""

    def __init__(self, config: Config, run: RunDir, grid: Grid, scorer: Scorer, observer: Observer) -> None:
        self._config = config
        self._run = run
        self._grid = grid
        self._scorer = scorer
        self._observer = observer
        self._roster = Roster(grid, [hospital.name for hospital in config.hospitals], self._warn)
        self._aggregator = Aggregator(config.federation)
        self._tensors: dict[str, dict[str, Tensor]] = scorer.initial()
        self._spent = {event["site"] for event in run.events() if event.get("status") == "budget_spent"}
        self._round = 0

    def train(self) -> None:
        """All rounds that are left. Raises FederationError when a round fails for good; the last checkpoint stays."""
        checkpoint = load_checkpoint(self._run.checkpoints, self._run.run_id, self._tensors)
        if checkpoint:
            self._round = checkpoint.round
            self._tensors = {method: dict(own) for method, own in checkpoint.tensors.items()}
            self._aggregator.restore(checkpoint.moments)
        rounds = self._config.federation.rounds
        self._observer({"kind": "start", "round": self._round, "rounds": rounds})
        if self._round == 0:
            self._evaluate(final=False)
        if self._round == rounds:
            self._evaluate(final=True)
            return
        self._roster.wait_for(self._needed(), self._config.federation.wait_s, hoped=len(self._config.hospitals))
        while self._round < rounds:
            self._round += 1
            self._one_round()
            last = self._round == rounds
            if last or self._round % self._config.evaluation.every == 0:
                self._evaluate(final=last)
            moments = self._aggregator.state()
            save_checkpoint(self._run.checkpoints, Checkpoint(self._run.run_id, self._round, self._tensors, moments))

    def _one_round(self) -> None:
        settings = self._config.federation
        for attempt in range(1, settings.retries + 2):
            if attempt > 1:
                self._roster.wait_for(self._needed(), settings.wait_s)
            started = time.perf_counter()
            tried = self._attempt(attempt)
            valid, needed = tried.valid, self._needed()
            self._log_attempt(tried, attempt, needed, time.perf_counter() - started)
            if len(valid) >= needed:
                for method, current in self._tensors.items():
                    self._tensors[method] = self._aggregator.combine(self._round, method, current, valid)
                return
            self._warn(f"round {self._round}, try {attempt}: {len(valid)} valid replies, {needed} needed")
        reasons = {site: reason for site, (_, reason) in tried.faults.items()}
        reasons |= dict.fromkeys(self._spent, "its privacy budget is spent")
        said = "; ".join(f"{site}: {reason}" for site, reason in sorted(reasons.items())) or "no site is connected"
        raise FederationError(
            f"round {self._round} got {len(valid)} valid replies of the {needed} it needs after "
            f"{settings.retries + 1} tries ({said}); mend those sites and continue with --resume"
        )

    def _attempt(self, attempt: int) -> _Attempt:
        present = {name: node for name, node in self._roster.present().items() if name not in self._spent}
        chosen = self._choose(sorted(present), attempt)
        tried = _Attempt(tuple(chosen))
        messages = []
        for site in chosen:
            content = self._instruction(len(chosen)).pack()
            tried.down += wire_bytes([content])
            messages.append(
                Message(content, dst_node_id=present[site], message_type=MessageType.TRAIN, group_id=str(self._round))
            )
            self._observer({"kind": "asked", "round": self._round, "site": site})
        self._collect(tried, messages, {present[site]: site for site in chosen})
        for site, reason in outsized(tried.valid, self._tensors, self._config.federation.norm_factor).items():
            tried.faults[site] = ("rejected", reason)
        return tried

    def _collect(self, tried: _Attempt, messages: list[Message], names: Mapping[int, str]) -> None:
        silent = set(tried.asked)
        for answer in self._grid.send_and_receive(messages, timeout=self._config.federation.deadline_s):
            site = names.get(answer.metadata.src_node_id)
            if site is None or site not in silent:
                continue
            silent.remove(site)
            if not answer.has_content():
                tried.faults[site] = (
                    "error",
                    f"its app failed (code {answer.error.code}); look into the site's own log",
                )
                continue
            tried.up += wire_bytes([answer.content])
            self._judge(tried, site, answer)
        for site in silent:
            tried.faults[site] = ("no reply", f"no reply within {self._config.federation.deadline_s:g} s")

    def _judge(self, tried: _Attempt, site: str, answer: Message) -> None:
        try:
            reply = Reply.unpack(answer.content)
        except MalformedMessage as error:
            tried.faults[site] = ("rejected", str(error))
            return
        if reply.site != site:
            tried.faults[site] = ("rejected", f"it answers in the name of {reply.site!r}")
        elif reply.version != __version__:
            tried.faults[site] = ("rejected", f"it runs fed_fsad {reply.version} and the server {__version__}")
        elif reply.status != "ok":
            tried.faults[site] = (reply.status, reply.reason)
            if reply.status == "budget_spent":
                self._spent.add(site)
        else:
            tried.heard[site] = reply
            if problem := fault(reply, self._tensors):
                tried.faults[site] = ("rejected", problem)

    def _instruction(self, cohort: int) -> Instruction:
        return Instruction(
            run=self._run.run_id,
            round=self._round,
            rounds=self._config.federation.rounds,
            seed=self._config.seed,
            threads=self._config.threads,
            cohort=cohort,
            settings=self._config.training,
            tensors=self._tensors,
            insecure_noise_seed=self._config.privacy.insecure_noise_seed,
        )

    def _choose(self, names: list[str], attempt: int) -> list[str]:
        wanted = self._config.federation.participants
        if wanted is None or wanted >= len(names):
            return names
        stream = numpy_stream(self._config.seed, "participants", self._round, attempt)
        return sorted(str(name) for name in stream.choice(names, wanted, replace=False))

    def _needed(self) -> int:
        """Valid replies a round must have, of the sites it should ask whether they are connected or not; never 0."""
        settings = self._config.federation
        able = len(self._config.hospitals) - len(self._spent)
        return settings.min_replies or min(able, settings.participants or able) // 2 + 1

    def _evaluate(self, final: bool) -> None:
        for event in self._scorer.evaluate(self._tensors, self._round, final):
            self._log(event)

    def _log_attempt(self, tried: _Attempt, attempt: int, needed: int, seconds: float) -> None:
        for site in tried.asked:
            status, reason = tried.faults.get(site, ("ok", ""))
            line: dict[str, Any] = {
                "kind": "site",
                "round": self._round,
                "site": site,
                "status": status,
                "reason": reason,
            }
            if site in tried.heard:
                # A rejected update was paid for like any other: its ε counts, its figures do not.
                line |= _account(tried.heard[site]) | ({} if site in tried.faults else _figures(tried.heard[site]))
            self._log(line)
        self._log(
            {
                "kind": "round",
                "round": self._round,
                "attempt": attempt,
                "seconds": round(seconds, 3),
                "bytes_up": tried.up,
                "bytes_down": tried.down,
                "replies": len(tried.valid),
                "complete": len(tried.valid) >= needed,
                "rejected": {site: reason for site, (_, reason) in sorted(tried.faults.items())},
            }
        )

    def _warn(self, text: str) -> None:
        self._log({"kind": "warning", "round": self._round, "text": text})

    def _log(self, event: Event) -> None:
        self._run.log(event)
        self._observer(event)


def _figures(reply: Reply) -> dict[str, Any]:
    blocks: dict[str, dict[str, float]] = {}
    for method in reply.tensors:
        figures = {name: value for name, value in reply.metrics.get(method, {}).items() if name != "examples"}
        blocks[method] = figures | ({"examples": reply.examples[method]} if method in reply.examples else {})
    return {"methods": blocks, "seconds": round(reply.seconds, 3)}


def _account(reply: Reply) -> dict[str, Any]:
    return {"epsilon": reply.epsilon, "delta": reply.delta, "unit": reply.unit, "claim": reply.claim}
