"""Questions out, answers in: one message phase, and the replies that come too late for it."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flwr.app import Message, MessageType, RecordDict
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

    def ask(self, questions: Sequence[Question]) -> Iterator[Answer]:
        """Every question's answer, as it comes, then the late ones of the phase before, then who did not answer; ends
        at the deadline at the latest. An answer is nobody's but the caller's: on a grid that works site by site there
        is one at a time in memory.
        """
        sent = deque(self._messages(questions))
        messages = [message for message, _, _ in sent]
        asked: dict[str, tuple[Question, int]] = {}
        earlier, self._open = self._open, {}
        deadline = time.monotonic() + self._settings.deadline_s
        for reply in self._grid.send_and_receive(messages, timeout=self._settings.deadline_s) if messages else []:
            _enter(sent, asked)
            if found := asked.pop(reply.metadata.reply_to_message_id, None):
                yield Answer(found[0], reply, False, found[1])
        _enter(sent, asked)
        if self._settings.late == "use":
            self._open = {key: question for key, (question, _) in asked.items() if question.trains}
        now = {question.site for question in questions}
        for key, reply in self._late(earlier, 0.0 if messages else deadline).items():
            if earlier[key].site not in now:
                yield Answer(earlier[key], reply, True, 0)
        unheard = [*asked.values(), *((question, down) for _, question, down in sent)]
        yield from (Answer(question, None, False, down) for question, down in unheard)

    @staticmethod
    def _messages(questions: Sequence[Question]) -> list[tuple[Message, Question, int]]:
        """Messages, with their questions and bytes; those of one instruction share one content."""
        packed: dict[int, tuple[RecordDict, int]] = {}
        made = []
        for question in questions:
            told = question.instruction
            if id(told) not in packed:
                content = told.pack()
                packed[id(told)] = content, wire_bytes([content])
            content, size = packed[id(told)]
            kind = MessageType.TRAIN if question.trains else MessageType.EVALUATE
            message = Message(content, dst_node_id=question.node, message_type=kind, group_id=str(told.round))
            made.append((message, question, size))
        return made

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


def _enter(sent: deque[tuple[Message, Question, int]], asked: dict[str, tuple[Question, int]]) -> None:
    """Move the messages that have got their id, which the grid gives them when they leave."""
    while sent and (key := sent[0][0].metadata.message_id):
        _, question, down = sent.popleft()
        asked[key] = question, down
