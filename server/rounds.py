"""The rounds of a federation: ask, check, aggregate, evaluate, keep."""

import time
from collections.abc import Callable, Sequence

from flwr.serverapp import Grid
from torch import Tensor

from fed_fsad import methods
from fed_fsad.config import Config
from fed_fsad.errors import FederationError
from fed_fsad.messages import Instruction, Reply
from fed_fsad.methods.method import travelling
from fed_fsad.rundir import Event, RunDir
from fed_fsad.seeds import numpy_stream
from server.aggregate import Aggregator
from server.attempts import Attempt
from server.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from server.exchange import Exchange, Question
from server.guard import evaluation_fault
from server.hospital_dp import HospitalPrivacy
from server.lines import evaluation_lines, round_line, site_lines
from server.roster import Roster
from server.scoring import Scorer
from server.secure.protocol import secure_rounds
from server.shelf import Shelf
from server.standing import Standing
from server.variates import Variates, kept_of

Observer = Callable[[Event], None]


class Coordinator:
    """Runs a federation from its last checkpoint to its last round; everything that happens is logged as it happens."""

    def __init__(self, config: Config, run: RunDir, grid: Grid, scorer: Scorer, observer: Observer) -> None:
        self._config = config
        self._run = run
        self._scorer = scorer
        self._observer = observer
        self._roster = Roster(grid, [hospital.name for hospital in config.hospitals], self._warn)
        self._trainers = frozenset(config.trainers)
        self._exchange = Exchange(grid, config.federation)
        self._shelf = Shelf(run.path)
        self._secure = secure_rounds(grid, config)
        self._aggregator = Aggregator(config.federation)
        terms = config.privacy.central
        self._hospital = None if terms is None else HospitalPrivacy(config, terms, run)
        self._tensors: dict[str, dict[str, Tensor]] = scorer.initial()
        scaffold = config.federation.local.name == "scaffold"
        self._variates = Variates(self._travelling() if scaffold else {}, len(config.trainers))
        self._standing = Standing(config.federation.suspend_after, run.events())
        self._warned = {event["text"] for event in run.events() if event["kind"] == "warning"}
        self._round = 0

    def train(self) -> None:
        """All rounds that are left. Raises FederationError when a round fails for good; the last checkpoint stays."""
        self._restore()
        settings = self._config.federation
        self._warn_of_local_parts()
        if self._hospital and (drowned := self._hospital.warning(self._travelling())):
            self._warn_once(drowned)
        self._observer({"kind": "start", "round": self._round, "rounds": settings.rounds})
        if self._round == 0:
            self._evaluate(final=False)
        if self._round == settings.rounds:
            self._evaluate(final=True)
        else:
            hoped = len(self._config.hospitals) - len(self._standing.out)
            self._roster.wait_for(self._needed(), settings.wait_s, self._able, hoped)
        while self._round < settings.rounds:
            if self._hospital and (why := self._hospital.spent(self._round + 1)):
                self._warn_once(why)
                self._evaluate(final=True)
                break
            self._round += 1
            self._one_round()
            last = self._round == settings.rounds
            if last or self._round % self._config.evaluation.every == 0:
                self._evaluate(final=last)
            save_checkpoint(self._run.checkpoints, self._checkpoint())
        self._last_evaluation()
        self._shelf.clear()

    def _warn_of_local_parts(self) -> None:
        for name, settings in self._config.training.items():
            if settings.local_parts and self._round == 0:
                self._warn(
                    f"{', '.join(settings.local_parts)} of {name} stay at the sites; the server's own evaluation and "
                    "its checkpoints hold them as they were at the start"
                )

    def _restore(self) -> None:
        checkpoint = load_checkpoint(self._run.checkpoints, self._run.run_id, self._tensors, self._scorer.texts)
        if checkpoint is None:
            return
        self._round = checkpoint.round
        self._tensors = {method: dict(own) for method, own in checkpoint.tensors.items()}
        moments, variates = kept_of(checkpoint.moments)
        self._aggregator.restore(moments)
        self._variates.restore(variates, checkpoint.standing.get("variates", {}))
        if self._hospital:
            self._hospital.restore(checkpoint.standing.get("hospital_privacy", {}))
        self._standing.restore(checkpoint.standing)
        for site, reason in self._standing.suspended.items():
            self._warn(f"{site} stays {reason}")

    def _checkpoint(self) -> Checkpoint:
        moments, standing = self._aggregator.state() | self._variates.state(), self._standing.state()
        standing["variates"] = self._variates.entered
        if self._hospital:
            standing["hospital_privacy"] = self._hospital.state()
        texts = self._scorer.texts
        return Checkpoint(self._run.run_id, self._round, self._tensors, moments, standing, texts)

    def _one_round(self) -> None:
        settings = self._config.federation
        for attempt in range(1, settings.retries + 2):
            if attempt > 1:
                self._roster.wait_for(self._needed(), settings.wait_s, self._able)
            started = time.perf_counter()
            tried = self._attempt(attempt)
            valid, needed = tried.valid, self._needed()
            self._log_attempt(tried, round_line(tried, self._round, attempt, needed, time.perf_counter() - started))
            if len(valid) >= needed:
                updates = self._hidden(tried)
                for method, current in self._tensors.items():
                    self._tensors[method] = self._aggregator.combine(self._round, method, current, updates)
                self._variates.add(updates)
                return
            self._warn(f"round {self._round}, try {attempt}: {len(valid)} valid replies, {needed} needed")
        reasons = {**{site: reason for site, (_, reason) in tried.faults.items()}, **self._standing.out}
        said = "; ".join(f"{site}: {reason}" for site, reason in sorted(reasons.items())) or "no site is connected"
        raise FederationError(
            f"round {self._round} got {len(valid)} valid replies of the {needed} it needs after "
            f"{settings.retries + 1} tries ({said}); mend those sites and continue with --resume auto"
        )

    def _hidden(self, tried: Attempt) -> list[Reply]:
        """What the strategies see: the updates, or under hospital-level privacy one reply that hides each of them."""
        if self._hospital is None:
            return tried.updates(self._tensors)
        reply, line = tried.hidden(self._hospital, self._round, self._travelling())
        self._log(line)
        return [reply]

    def _travelling(self) -> dict[str, dict[str, Tensor]]:
        return {name: travelling(self._tensors[name], block) for name, block in self._config.training.items()}

    def _attempt(self, attempt: int) -> Attempt:
        busy = self._exchange.busy
        present = {site: node for site, node in self._roster.present().items() if self._standing.asks(site)}
        free = [site for site in present if self._trains(site) and site not in busy]
        chosen = self._choose(free, attempt)
        evaluate = attempt == 1 and (self._round - 1) % self._config.evaluation.every == 0
        instruction = self._instruction(max(1, len(chosen)), attempt, evaluate)
        watching = [site for site in present if evaluate and not self._trains(site)]
        told = self._variates.told(instruction, chosen)
        for site in chosen:
            self._observer({"kind": "asked", "round": self._round, "site": site})
        tried = self._ask(
            [
                *(Question(site, present[site], told[site]) for site in chosen),
                *(Question(site, present[site], instruction, trains=False) for site in watching),
            ]
        )
        if self._hospital is None:  # what one hospital does must not decide whether another one counts
            tried.reject_outsized(self._tensors, self._config.federation.norm_factor)
        return tried

    def _ask(self, questions: list[Question]) -> Attempt:
        self._shelf.clear()
        tried, rest = Attempt(keep=self._shelf.put), questions
        if self._secure is not None:
            tried = self._secure.ask([question for question in questions if question.trains])
            rest = [question for question in questions if not question.trains]
        silence = f"no reply within {self._config.federation.deadline_s:g} s"
        for answer in self._exchange.ask(rest):
            tried.take(answer, self._tensors, silence)
        return tried

    def _instruction(self, cohort: int, attempt: int, evaluate: bool) -> Instruction:
        return Instruction(
            run=self._run.run_id,
            round=self._round,
            rounds=self._config.federation.rounds,
            seed=self._config.seed,
            threads=self._config.threads,
            cohort=cohort,
            settings=self._config.training,
            tensors=self._travelling(),
            insecure_noise_seed=self._config.privacy.insecure_noise_seed,
            attempt=attempt,
            evaluation=self._config.evaluation if evaluate else None,
            texts=self._scorer.texts,
            example=self._config.privacy.asked,
            hospital=self._config.privacy.central,
            local=self._config.federation.local,
            variates=self._variates.sent,
        )

    def _choose(self, names: list[str], attempt: int) -> list[str]:
        wanted = self._config.federation.participants
        if wanted is None or wanted >= len(names):
            return names
        stream = numpy_stream(self._config.seed, "participants", self._round, attempt)
        return sorted(str(name) for name in stream.choice(names, wanted, replace=False))

    def _trains(self, site: str) -> bool:
        return site in self._trainers and not self._roster.only_predicts(site)

    def _able(self, site: str) -> bool:
        return self._trains(site) and self._standing.asks(site)

    def _needed(self) -> int:
        """Valid replies a round must have, of the sites it should ask whether they are connected or not; never 0."""
        settings = self._config.federation
        able = sum(map(self._able, self._trainers))
        least = 1 if self._secure is None else self._config.privacy.secure.smallest
        return max(least, settings.min_replies or min(able, settings.participants or able) // 2 + 1)

    def _evaluate(self, final: bool) -> None:
        for event in self._scorer.evaluate(self._tensors, self._round, final):
            self._log(event)

    def _last_evaluation(self) -> None:
        """The last model, scored by the sites that have told figures before and by those that only watch; whoever
        fails here is named, and the run is complete all the same.
        """
        told = [event for event in self._run.events() if event["kind"] == "site_evaluation"]
        done = {event["site"] for event in told if event["round"] == self._round}
        try:
            present = self._roster.present()
        except FederationError as error:
            self._warn(f"the last model was not scored by the sites: {error}")
            return
        tuned = self._config.trainers if self._config.federation.local.fine_tune else ()
        wanted = {event["site"] for event in told} | {site for site in present if not self._trains(site)} | {*tuned}
        instruction = self._instruction(len(present) or 1, self._config.federation.retries + 2, evaluate=True)
        left = wanted - done - set(self._standing.out)
        asked = [site for site in present if site in left]
        tried = self._ask([Question(site, present[site], instruction, trains=False) for site in asked])
        for site, (_, reason) in sorted(tried.faults.items()):
            self._warn(f"{site} did not score the last model: {reason}")
        self._log_evaluations([(tried.heard[site], self._round) for site in sorted({*tried.heard} - {*tried.faults})])

    def _log_attempt(self, tried: Attempt, whole: Event) -> None:
        lines = list(site_lines(tried, self._round))
        self._log(*lines)
        for line in lines:
            for method, figures in line.get("methods", {}).items():
                if text := methods.concern(method, figures):
                    self._warn_once(f"{line['site']}: {text}")
            if self._standing.note(line["site"], line["status"], line["reason"]):
                reason = self._standing.suspended[line["site"]]
                self._log({"kind": "suspended", "round": self._round, "site": line["site"], "reason": reason})
                self._warn(f"{line['site']} is {reason}")
        for text in tried.remarks:
            self._warn_once(text)
        good = [site for site in tried.sites if site in tried.heard and site not in tried.faults]
        self._log_evaluations([(tried.heard[site], tried.late.get(site, self._round) - 1) for site in good])
        self._log(whole)

    def _log_evaluations(self, told: Sequence[tuple[Reply, int]]) -> None:
        lines: list[Event] = []
        for reply, round_ in told:
            if problem := evaluation_fault(reply.evaluation, self._tensors):
                self._warn(f"the figures of {reply.site}'s own evaluation are left out: {problem}")
            else:
                lines += evaluation_lines(reply, round_)
        self._log(*lines)

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)

    def _warn(self, text: str) -> None:
        self._log({"kind": "warning", "round": self._round, "text": text})

    def _log(self, *events: Event) -> None:
        self._run.log(*events)
        for event in events:
            self._observer(event)
