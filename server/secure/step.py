"""One step of secure aggregation, asked of all sites that are left, and what each of them makes of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fed_fsad.fields import MalformedMessage, config_of
from fed_fsad.secagg import wire
from fed_fsad.secagg.crypto import Vector
from fed_fsad.secagg.site import Terms
from server.exchange import Answer, Question
from server.secure.attempt import SecureAttempt

KIND = f"{MessageType.TRAIN}.{wire.ACTION}"
Handle = Callable[[str, ConfigRecord, ArrayRecord | None], None]
"""Takes in what a site answered: the step's values and its masked vector. Raises MalformedMessage."""
LONGEST_SHARE = 1000


class Step:
    """The steps of one session. Each returns the questions of those who are left, by site name."""

    def __init__(self, grid: Grid, deadline: float, terms: Terms, tried: SecureAttempt) -> None:
        self._grid, self._deadline, self._terms, self._tried = grid, deadline, terms, tried

    def announce(self, questions: Sequence[Question]) -> list[Question]:
        """Public keys, of every site its own."""

        def handle(site: str, said: ConfigRecord, array: ArrayRecord | None) -> None:
            public = wire.keys_of(said)
            if {*public} & {key for pair in self._tried.keys.values() for key in pair}:
                raise MalformedMessage("its public key is that of another site")
            self._tried.keys[site] = public

        return self._ask("announce", questions, lambda site: {}, handle)

    def share(self, questions: Sequence[Question], threshold: int) -> list[Question]:
        """Everybody trains, and sends every other site a ciphertext."""
        names = {question.site for question in questions}
        roll = wire.roll_values({site: self._tried.keys[site] for site in names}, threshold)

        def handle(site: str, said: ConfigRecord, array: ArrayRecord | None) -> None:
            sealed, commitment = wire.by_site(said, "ciphertexts"), wire.commitment_of(said)
            if set(sealed) != names - {site}:
                raise MalformedMessage("it does not share its secrets with the sites whose keys it was shown")
            self._tried.ciphertexts[site], self._tried.commitments[site] = sealed, commitment

        return self._ask("share", questions, lambda site: roll, handle)

    def mask(self, questions: Sequence[Question], length: int) -> list[Question]:
        """The ciphertexts reach those they were made for, and masked vectors come back, of which the sum is kept.

        Who sent a ciphertext that its reader cannot read is out, and so is the reader: it has hidden nothing.
        """
        names, vectors = [question.site for question in questions], dict[str, Vector]()

        def sealed(site: str) -> dict[str, object]:
            others = [name for name in names if name != site]
            return {"sites": others, "ciphertexts": [self._tried.ciphertexts[name][site] for name in others]}

        def handle(site: str, said: ConfigRecord, array: ArrayRecord | None) -> None:
            vectors[site] = wire.vector_of(array, length)

        left = self._ask("mask", questions, sealed, handle)
        self._tried.enter({question.site: vectors[question.site] for question in left})
        return left

    def open(self, questions: Sequence[Question], shared: Sequence[Question]) -> list[Question]:
        """Who is in the sum tells shares: of the seeds of those in it, of the keys of those who dropped out."""
        active, everybody = [question.site for question in questions], [question.site for question in shared]
        told = {"active": active, "dropped": [site for site in everybody if site not in active]}

        def handle(site: str, said: ConfigRecord, array: ArrayRecord | None) -> None:
            shares = wire.by_site(said, "shares")
            if set(shares) != set(everybody) or any(len(share) > LONGEST_SHARE for share in shares.values()):
                raise MalformedMessage("it tells other shares than it was asked for")
            self._tried.shares[site] = shares

        left = self._ask("open", questions, lambda site: told, handle)
        self._tried.note({site: self._tried.faults[site][1] for site in active if site in self._tried.faults})
        return left

    def _ask(
        self, step: str, questions: Sequence[Question], told: Callable[[str], Mapping[str, object]], handle: Handle
    ) -> list[Question]:
        messages = []
        for question in questions:
            instruction = replace(question.instruction, cohort=len(questions))
            content = instruction.pack() if step == "share" else RecordDict()
            content[wire.KEY] = wire.question(step, self._terms, told(question.site))
            group = str(instruction.round)
            messages.append(Message(content, dst_node_id=question.node, message_type=KIND, group_id=group))
        down = [wire.bytes_of(message.content) for message in messages]
        replies = self._grid.send_and_receive(messages, timeout=self._deadline)
        came = {message.metadata.reply_to_message_id: message for message in replies}
        for message, question, sent in zip(messages, questions, down, strict=True):
            self._take(step, Answer(question, came.get(message.metadata.message_id), False, sent), handle)
        return sorted((q for q in questions if q.site not in self._tried.faults), key=lambda question: question.site)

    def _take(self, step: str, answer: Answer, handle: Handle) -> None:
        site, message = answer.question.site, answer.message
        content = message.content if message is not None and message.has_content() else RecordDict()
        up, array = wire.bytes_of(content), content.array_records.pop(wire.VECTOR, None)
        silence = f"no reply to the step {step!r} of secure aggregation within {self._deadline:g} s"
        usable = self._tried.hear(answer, silence, up, trained=step == "share")
        try:
            if usable:
                handle(site, config_of(content, wire.KEY), array)
            elif wire.KEY in content.config_records:
                self._tried.accuse(site, wire.accused(content.config_records[wire.KEY]))
        except MalformedMessage as error:
            self._tried.faults.setdefault(site, ("rejected", str(error)))
