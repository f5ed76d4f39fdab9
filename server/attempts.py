"""One try at a round: who was asked, what became of every answer, and which updates may enter the model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from flwr.app import Message
from torch import Tensor

from fed_fsad import __version__
from fed_fsad.messages import Instruction, MalformedMessage, Reply, Tensors, wire_bytes
from fed_fsad.rundir import Event
from server.exchange import Answer, Question
from server.guard import fault, misfit, outsized
from server.hospital_dp import HospitalPrivacy
from server.variates import outsized_variates, variates_fault

NODE_GONE = 5
"""Flower's error code for a node that left before it answered."""


@dataclass
class Attempt:
    """What is known of one try. By site throughout.

    heard: every reply that could be read and is the site's own, also those with a fault. faults: (status, reason) of
    every site whose answer does not enter the model. late: the round that a late update was trained for. up, down:
    bytes of tensors. watching: sites that were only asked to evaluate. keep: puts an update where it waits for others.
    """

    masks: ClassVar[bool] = False
    """Whether updates were masked at the sites."""

    heard: dict[str, Reply] = field(default_factory=dict)
    faults: dict[str, tuple[str, str]] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)
    up: dict[str, int] = field(default_factory=dict)
    down: dict[str, int] = field(default_factory=dict)
    watching: set[str] = field(default_factory=set)
    keep: Callable[[Reply], Reply] = lambda reply: reply

    @property
    def sites(self) -> list[str]:
        """Everybody this try has a word on, by name."""
        return sorted(self.down)

    @property
    def valid(self) -> list[Reply]:
        """The updates that enter the model, by site name."""
        return [self.heard[site] for site in self.sites if self._enters(site)]

    def _enters(self, site: str) -> bool:
        return site in self.heard and site not in self.faults and site not in self.watching

    def take(self, answer: Answer, current: Mapping[str, Tensors], silence: str) -> None:
        """Enter one answer. current: the global tensors now. silence: the reason of a site that did not answer."""
        question, message = answer.question, answer.message
        site = question.site
        self.down[site] = answer.down
        if answer.late:
            self.late[site] = question.instruction.round
        if not question.trains:
            self.watching.add(site)
        if message is None:
            self.faults[site] = ("no reply", silence)
        elif not message.has_content():
            self.faults[site] = _app_error(message.error.code)
        else:
            self.up[site] = wire_bytes([message.content])
            self._judge(answer, message, current)

    def _judge(self, answer: Answer, message: Message, current: Mapping[str, Tensors]) -> None:
        question = answer.question
        site, sent = question.site, question.instruction
        try:
            reply = Reply.unpack(message.content)
        except MalformedMessage as error:
            self.faults[site] = ("rejected", str(error))
            return
        if problem := _not_its_own(reply, answer, message):
            self.faults[site] = ("rejected", problem)
        elif reply.status != "ok":
            self.faults[site] = (reply.status, reply.reason)
        elif problem := _replayed(reply, sent):
            self.faults[site] = ("rejected", problem)
        elif problem := self.unfit(reply, question):
            self.heard[site] = replace(reply, tensors={}, variates={})
            self.faults[site] = ("rejected", problem)
        else:
            self.heard[site] = self.keep(rebased(reply, sent.tensors, current) if answer.late else reply)

    def unfit(self, reply: Reply, question: Question) -> str | None:
        """Why an answer to this very question cannot be used, or None."""
        sent = question.instruction
        problem = misfit(reply, question.trains)
        return problem or ((fault(reply, sent.tensors) or variates_fault(reply, sent)) if question.trains else None)

    def updates(self, current: Mapping[str, Tensors]) -> list[Reply]:
        """What is aggregated: the updates of the sites, one by one. current: the global tensors now."""
        return self.valid

    @property
    def remarks(self) -> list[str]:
        """What the run's user should know of this try beside the faults."""
        return []

    def hidden(self, hospital: HospitalPrivacy, round_: int, current: Mapping[str, Tensors]) -> tuple[Reply, Event]:
        """All updates as one reply that hides each hospital, and the line that tells of it. current: what travels."""
        return hospital.hide(round_, current, self.valid)

    def reject_outsized(self, current: Mapping[str, Tensors], factor: float) -> None:
        """Leave out updates whose length is far from the cohort's."""
        found = outsized_variates(self.valid, factor) | outsized(self.valid, current, factor)
        self.faults |= {site: ("rejected", reason) for site, reason in found.items()}


def rebased(reply: Reply, sent: Mapping[str, Tensors], current: Mapping[str, Tensors]) -> Reply:
    """A late update moved to where the model is now: current + (reply − sent), tensor by tensor (ours).

    What the site learned is the step from what it was sent. Where the model has not moved since (the round was
    repeated), the reply stays as it is, to the last bit.
    """
    tensors: dict[str, dict[str, Tensor]] = {}
    for method, own in reply.tensors.items():
        at, base = current[method], sent[method]
        same = all(at[name] is base[name] for name in own)
        tensors[method] = dict(own) if same else {name: at[name] + (own[name] - base[name]) for name in own}
    return replace(reply, tensors=tensors)


def _not_its_own(reply: Reply, answer: Answer, message: Message) -> str | None:
    """Why this is no answer of the site that was asked, or None."""
    question = answer.question
    if reply.site != question.site or message.metadata.src_node_id != question.node:
        return f"it answers in the name of {reply.site!r}"
    if reply.version != __version__:
        return f"it runs fed_fsad {reply.version} and the server {__version__}"
    return None


def _replayed(reply: Reply, sent: Instruction) -> str | None:
    """Why this is an answer to another question than the one that was asked, or None."""
    if reply.run and reply.run != sent.run:
        return "a reply to another run was sent again"
    if (reply.run, reply.round, reply.attempt) != (sent.run, sent.round, sent.attempt):
        return (
            f"it answers round {reply.round}, try {reply.attempt}, but was asked for round {sent.round}, "
            f"try {sent.attempt}: an old reply was sent again"
        )
    return None


def _app_error(code: int) -> tuple[str, str]:
    if code == NODE_GONE:
        return "no reply", "its node went away before it answered; look whether the site is running"
    return "error", f"its app failed (code {code}); look into the site's own log"
