"""Who is there: hospitals by name. Node ids come and go and never order or seed anything."""

import time
from collections.abc import Callable, Sequence

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fed_fsad import __version__
from fed_fsad.errors import FederationError
from fed_fsad.messages import MalformedMessage, Reply

POLL_S = 1.0
QUERY_TIMEOUT_S = 60.0


class Roster:
    """The sites a run waits for, and the node each of them is reached at."""

    def __init__(self, grid: Grid, expected: Sequence[str], warn: Callable[[str], None]) -> None:
        self._grid = grid
        self._expected = tuple(sorted(expected))
        self._warn = warn
        self._names: dict[int, str | None] = {}

    def present(self) -> dict[str, int]:
        """Node id by site name, sorted by name; nodes that are new are asked who they are.

        Raises FederationError when two nodes give the same name.
        """
        connected = sorted(self._grid.get_node_ids())
        self._names = {node: name for node, name in self._names.items() if node in connected}
        self._ask([node for node in connected if node not in self._names])
        sites: dict[str, int] = {}
        for node, name in sorted(self._names.items()):
            if name is None:
                continue
            if name in sites:
                raise FederationError(f"two sites call themselves {name!r}; give each its own name in its site.yaml")
            sites[name] = node
        return dict(sorted(sites.items()))

    def wait_for(self, wanted: int, seconds: float) -> dict[str, int]:
        """Wait until `wanted` of the expected sites are there. Raises FederationError naming those that are not."""
        deadline = time.monotonic() + seconds
        while True:
            sites = self.present()
            if len(sites) >= wanted:
                return sites
            if time.monotonic() >= deadline:
                missing = ", ".join(name for name in self._expected if name not in sites)
                raise FederationError(
                    f"after {seconds:g} s only {len(sites)} of the {wanted} sites a round needs are there, missing: "
                    f"{missing}; start them, or lower federation.min_replies"
                )
            time.sleep(min(POLL_S, seconds))

    def _ask(self, nodes: Sequence[int]) -> None:
        if not nodes:
            return
        content = RecordDict({"query": ConfigRecord({"version": __version__})})
        queries = [Message(content, dst_node_id=node, message_type=MessageType.QUERY) for node in nodes]
        for answer in self._grid.send_and_receive(queries, timeout=QUERY_TIMEOUT_S):
            node = answer.metadata.src_node_id
            try:
                reply = Reply.unpack(answer.content) if answer.has_content() else None
            except MalformedMessage:
                reply = None
            self._names[node] = self._admit(reply)

    def _admit(self, reply: Reply | None) -> str | None:
        """The site's name, or None when this node is not asked to train."""
        if reply is None:
            self._warn("a node did not say which site it is and is left out; look into its own log")
            return None
        if reply.status != "ok":
            self._warn(f"{reply.site} cannot take part: {reply.reason}")
            return None
        if reply.version != __version__:
            self._warn(
                f"{reply.site} runs fed_fsad {reply.version} and the server {__version__}; install the same version"
            )
            return None
        if reply.site not in self._expected:
            self._warn(f"a site called {reply.site!r} is not in the config and is left out; add it under hospitals")
            return None
        return reply.site
