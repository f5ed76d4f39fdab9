"""One try at a round under secure aggregation: what became of every site, and the sum, if there is one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import Tensor

from fed_fsad import __version__
from fed_fsad.messages import Reply, Tensors
from fed_fsad.privacy.hospital import flat
from fed_fsad.rundir import Event
from fed_fsad.secagg.crypto import PublicKeys, Vector
from fed_fsad.secagg.vector import SecureSum
from server.attempts import Attempt
from server.exchange import Answer, Question
from server.hospital_dp import HospitalPrivacy


@dataclass
class SecureAttempt(Attempt):
    """`Attempt` whose replies carry no tensors.

    keys, commitments: by site. ciphertexts: by who made them, then by whom they are for. entered: the sites whose
    vectors are in `masked`, [L], their sum. shares: by holder, then by owner. total: the sum without masks, if there is
    one. down and up count what travelled in all four steps, keys and shares included.
    """

    masks: ClassVar[bool] = True

    keys: dict[str, PublicKeys] = field(default_factory=dict)
    commitments: dict[str, bytes] = field(default_factory=dict)
    ciphertexts: dict[str, dict[str, bytes]] = field(default_factory=dict)
    entered: set[str] = field(default_factory=set)
    masked: Vector = field(default_factory=lambda: np.zeros(0, np.uint32))
    shares: dict[str, dict[str, bytes]] = field(default_factory=dict)
    total: SecureSum | None = None

    @property
    def valid(self) -> list[Reply]:
        """Of the sites whose updates are in the sum; without a sum, of none."""
        return [self.heard[site] for site in sorted(self.entered)] if self.total is not None else []

    def unfit(self, reply: Reply, question: Question) -> str | None:
        """An update that is not masked is turned away."""
        return "it sends tensors that are not masked" if any(reply.tensors.values()) else None

    def updates(self, current: Mapping[str, Tensors]) -> list[Reply]:
        """The mean of the clipped updates, as one reply of nobody's."""
        assert self.total is not None, "only an attempt with a sum has valid replies"
        at, moved = flat(current), dict[str, dict[str, Tensor]]()
        for key, mean in self.total.mean().items():
            method, _, name = key.partition("|")
            moved.setdefault(method, {})[name] = (at[key].double().cpu() + mean).to(at[key].dtype)
        return [Reply("mean", __version__, tensors=moved)]

    @property
    def remarks(self) -> list[str]:
        """Which pieces are in no sum."""
        if self.total is None or not self.total.left_out:
            return []
        pieces = ", ".join(piece.replace("|", " ") for piece in self.total.left_out)
        return [f"{pieces}: trained by fewer sites than privacy.secure.smallest, so it stays as it was"]

    def hidden(self, hospital: HospitalPrivacy, round_: int, current: Mapping[str, Tensors]) -> tuple[Reply, Event]:
        """As `Attempt.hidden`; the sites clipped their updates themselves, and their lengths stayed with them."""
        assert self.total is not None, "only an attempt with a sum has valid replies"
        return hospital.hide_sum(round_, current, self.total.sums, {})

    def hear(self, answer: Answer, silence: str, up: int, trained: bool) -> bool:
        """Enter a step's answer; whether it can be used. trained: this is the answer that tells of the training."""
        site = answer.question.site
        told, sent, received = self.heard.get(site), self.up.get(site, 0), self.down.get(site, 0)
        self.take(answer, {}, silence)
        self.up[site], self.down[site] = sent + up, received + answer.down
        if not trained:
            self.heard.pop(site, None)
            if told is not None:
                self.heard[site] = told
        return site not in self.faults

    def enter(self, vectors: Mapping[str, Vector]) -> None:
        """Keep the sum of the masked vectors, and nothing else of them."""
        self.entered = set(vectors)
        self.masked = np.zeros(0, np.uint32)
        for vector in vectors.values():
            self.masked = vector.copy() if not self.masked.size else self.masked + vector

    def accuse(self, reader: str, sources: Sequence[str]) -> None:
        """`reader` cannot read what `sources` have sent it."""
        for source in sources:
            if source in self.keys:
                self.faults.setdefault(source, ("rejected", f"{reader} cannot read the shares it sent"))

    def note(self, reasons: Mapping[str, str]) -> None:
        """Name sites that failed or lied when the sum was opened: their updates are in it all the same."""
        for site, reason in reasons.items():
            status, _ = self.faults.get(site, ("rejected", ""))
            self.faults[site] = (status, f"its update is in the sum, but then: {reason}")

    def stop(self, sites: Sequence[str], reason: str) -> None:
        """The try ends without a sum; those of `sites` who have no fault of their own are told so."""
        for site in sites:
            self.faults.setdefault(site, ("error", f"no sum was made of this round's updates: {reason}"))
