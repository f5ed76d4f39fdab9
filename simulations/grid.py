"""A Flower Grid inside one process: the same ServerApp and ClientApp, no Ray, no sockets, the same bits every time."""

import copy
import pickle
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from flwr.app import ArrayRecord, Context, Error, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fed_fsad.arrays import copied
from fed_fsad.fields import records_of

SERVER_NODE = 1
FIRST_NODE = 2
CLIENT_APP_RAISED = 2
"""Flower's error code for an exception inside a ClientApp."""


class InProcessGrid(Grid):
    """Delivers every message by a function call, one site after the other."""

    def __init__(self, client_app: ClientApp, nodes: Sequence[UserConfig], run_config: UserConfig) -> None:
        """nodes: the node_config of every site. run_config: what ClientApps find in their context."""
        self._client_app = client_app
        self._run = Run.create_empty(run_id=1)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, SERVER_NODE, 1
        self._contexts: Mapping[int, Context] = {
            FIRST_NODE + i: Context(1, FIRST_NODE + i, dict(node), RecordDict(), dict(run_config))
            for i, node in enumerate(nodes)
        }
        self._sent = 0
        self._replies: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Take over another run's identity."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run this grid belongs to."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message from the server to a node."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Every site's node, always there."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver at once; the reply waits under the message's id."""
        pushed = []
        for message in messages:
            self._sent += 1
            message.metadata.__dict__["_message_id"] = f"message-{self._sent}"
            self._replies[message.metadata.message_id] = self._deliver(message)
            pushed.append(message.metadata.message_id)
        return pushed

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages, each handed out once."""
        return [self._replies.pop(key) for key in message_ids if key in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        """Ask the sites in turn, each when the answer of the one before was taken.

        One that takes more than `timeout` seconds for itself has not answered in time; its reply can be pulled later.
        Real sites work side by side, so nobody's clock runs while another has its turn.
        """
        for message in messages:
            started = time.monotonic()
            pushed = self.push_messages([message])
            if timeout is None or time.monotonic() - started <= timeout:
                yield from self.pull_messages(pushed)

    def _deliver(self, message: Message) -> Message:
        """Copies go both ways, as over a network: what a client does to its message changes nobody else's."""
        context = self._contexts[message.metadata.dst_node_id]
        try:
            return _copied(self._client_app(_copied(message), context))
        except Exception as error:
            return Message(Error(CLIENT_APP_RAISED, type(error).__name__), reply_to=message)


def _copied(message: Message) -> Message:
    """A message that shares no more with the first than texts, numbers and bytes, which nobody can change."""
    if not message.has_content():
        return copy.deepcopy(message)
    arrays = {key: copied(record) for key, record in records_of(message.content, ArrayRecord).items()}
    # several times as fast as deepcopy, but for arrays it would copy the bytes as well
    rest = pickle.loads(pickle.dumps({key: own for key, own in message.content.items() if key not in arrays}))
    content = RecordDict({key: arrays[key] if key in arrays else rest[key] for key in message.content})
    made = copy.copy(message)
    made.__dict__.update(_content=content, _metadata=copy.copy(message.metadata))
    return made
