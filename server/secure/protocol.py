"""The four steps of a round, asked of its sites one after the other; whoever fails in one is out, with a reason.

A site that falls silent before it has shared its secrets is as if it had never been asked. One that falls silent later
is taken out of the sum with the help of the others. With fewer sites than the threshold the try has failed.
"""

import secrets
from collections.abc import Sequence

from flwr.serverapp import Grid

from fed_fsad.config import Config
from fed_fsad.errors import FederationError
from fed_fsad.fields import MalformedMessage
from fed_fsad.messages import Instruction
from fed_fsad.secagg.opening import Cohort, unmask
from fed_fsad.secagg.site import Terms
from fed_fsad.secagg.vector import Layout, Quantiser, SecureSum, read_sum
from server.exchange import Question
from server.secure.attempt import SecureAttempt
from server.secure.step import Step


def secure_rounds(grid: Grid, config: Config) -> "SecureRounds | None":
    """None where the config does not ask for secure aggregation."""
    return SecureRounds(grid, config) if config.privacy.secure_aggregation == "on" else None


class SecureRounds:
    """Asks the sites of a round for the sum of their updates."""

    def __init__(self, grid: Grid, config: Config) -> None:
        self._grid = grid
        self._deadline = config.federation.deadline_s
        self._settings = config.privacy.secure
        self._central = config.privacy.central
        clip_norm = self._settings.clip_norm if self._central is None else self._central.clip_norm
        self._quantiser = Quantiser(clip_norm, self._settings.target_range)

    def ask(self, questions: Sequence[Question]) -> SecureAttempt:
        """One try. Whatever happens is in the attempt; nothing is raised for what a site does."""
        tried = SecureAttempt()
        if questions:
            try:
                tried.total = self._sum(questions, tried)
            except FederationError as error:
                tried.stop([question.site for question in questions], str(error))
        return tried

    def _sum(self, questions: Sequence[Question], tried: SecureAttempt) -> SecureSum:
        """Raises FederationError when too few sites are left, or when what is unmasked is no sum of updates."""
        asked = questions[0].instruction
        step = Step(self._grid, self._deadline, self._terms(asked), tried)
        layout, least = Layout.of(asked.tensors), self._settings.smallest
        announced = step.announce(questions)
        self._enough(announced, least, "announced keys")
        threshold = self._settings.threshold(len(announced))
        shared = step.share(announced, threshold)
        self._enough(shared, max(least, threshold), "shared their secrets")
        masked = step.mask(shared, layout.length)
        self._enough(masked, max(least, threshold), "sent a masked update")
        step.open(masked, shared)
        cohort = Cohort(
            {question.site: tried.keys[question.site] for question in shared},
            {question.site: tried.commitments[question.site] for question in shared},
            threshold,
        )
        return self._opened(tried, cohort, layout, asked)

    def _opened(self, tried: SecureAttempt, cohort: Cohort, layout: Layout, asked: Instruction) -> SecureSum:
        bare, wrong = unmask(tried.masked, cohort, tried.entered, tried.shares)
        tried.note(wrong)
        sites, smallest = len(tried.entered), self._settings.smallest
        try:
            total = read_sum(bare, layout, self._quantiser, sites=sites, smallest=smallest, current=asked.tensors)
        except MalformedMessage as error:
            raise FederationError(f"{error}, and nobody can tell which site is to blame; try again") from error
        if not total.sums:
            raise FederationError(f"no part was trained by {smallest} sites; let their policies allow the same part")
        return total

    def _terms(self, asked: Instruction) -> Terms:
        return Terms(
            session=secrets.token_hex(16),
            run=asked.run,
            round=asked.round,
            attempt=asked.attempt,
            smallest=self._settings.smallest,
            clip_norm=self._quantiser.clip_norm,
            target_range=self._quantiser.target_range,
            whole=self._central is not None,
        )

    @staticmethod
    def _enough(left: Sequence[Question], needed: int, what: str) -> None:
        if len(left) < needed:
            raise FederationError(
                f"only {len(left)} of the {needed} sites that secure aggregation needs {what}; mend the others"
            )
