"""Questions out, answers in: one message phase, and the replies that come too late for it."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from fed_fsad.config import Federation
from fed_fsad.messages import Instruction, wire_bytes

POLL_S = 3.0


@dataclass(frozen=True)
class Question:
    """What one site is asked. trains: to train, else only to evaluate."""

    site: str
    node: int
    instruction: Instruction
    trains: bool = True


@dataclass(frozen=True)
class Answer:
    """What came back. message: None when nothing came in time. late: it was asked in an earlier phase. down: bytes of
    tensors that went to the site in this phase.
    """

    question: Question
    message: Message | None
    late: bool
    down: int


class Exchange:
    """Sends questions and collects answers by the rules of the federation, on any Flower grid.

    With `late: use` a question to train that got no answer stays open during the next phase: its site counts as busy
    and is not asked again, and an answer that comes by then is handed out as a late one, once. After that it is given
    up. With `late: drop` nothing stays open. Open questions do not survive a restart of the server.
    """

    def __init__(self, grid: Grid, settings: Federation) -> None:
        self._grid = grid
        self._settings = settings
        self._open: dict[str, Question] = {}

    @property
    def busy(self) -> set[str]:
        """Sites that may still be at work on an earlier question."""
        return {question.site for question in self._open.values()}

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Every question's answer, and the late ones of the phase before; ends at the deadline at the latest."""
        asked: dict[str, tuple[Question, int]] = {}
        messages, sent = [], []
        for question in questions:
            kind = MessageType.TRAIN if question.trains else MessageType.EVALUATE
            content = question.instruction.pack()
            group = str(question.instruction.round)
            messages.append(Message(content, dst_node_id=question.node, message_type=kind, group_id=group))
            sent.append(wire_bytes([content]))
        earlier, self._open = self._open, {}
        deadline = time.monotonic() + self._settings.deadline_s
        came = self._grid.send_and_receive(messages, timeout=self._settings.deadline_s) if messages else []
        replies = self._replies(came)
        for message, question, down in zip(messages, questions, sent, strict=True):
            asked[message.metadata.message_id] = (question, down)
        late = self._late(earlier, 0.0 if messages else deadline)
        if self._settings.late == "use":
            self._open = {
                key: question for key, (question, _) in asked.items() if question.trains and key not in replies
            }
        return [
            *(Answer(question, late[key], True, 0) for key, question in earlier.items() if key in late),
            *(Answer(question, replies.get(key), False, down) for key, (question, down) in asked.items()),
        ]

    def _late(self, earlier: Mapping[str, Question], deadline: float) -> dict[str, Message]:
        """What has come to earlier questions by now; with nobody else to wait for, waits for it until the deadline."""
        found: dict[str, Message] = {}
        while earlier:
            found |= self._replies(self._grid.pull_messages([key for key in earlier if key not in found]))
            if len(found) == len(earlier) or time.monotonic() >= deadline:
                break
            time.sleep(POLL_S)
        return found

    @staticmethod
    def _replies(messages: Iterable[Message]) -> dict[str, Message]:
        """The first answer to each question, by the question's message id."""
        found: dict[str, Message] = {}
        for message in messages:
            found.setdefault(message.metadata.reply_to_message_id, message)
        return found
