"""Who is there: hospitals by name. Node ids come and go and never order or seed anything."""

import time
from collections.abc import Callable, Sequence

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid

from fed_fsad import __version__
from fed_fsad.data.settings import Role
from fed_fsad.errors import FederationError
from fed_fsad.messages import MalformedMessage, Reply

POLL_S = 1.0
QUERY_TIMEOUT_S = 60.0
ASK_AGAIN_S = 60.0
"""How long a node that could not be admitted is left alone before it is asked again: somebody may have mended it."""


class Roster:
    """The sites a run waits for, and the node each of them is reached at."""

    def __init__(self, grid: Grid, expected: Sequence[str], warn: Callable[[str], None]) -> None:
        self._grid = grid
        self._expected = tuple(sorted(expected))
        self._warn = warn
        self._names: dict[int, str] = {}
        self._roles: dict[str, Role] = {}
        self._asked: dict[int, float] = {}
        self._said: set[str] = set()

    def only_predicts(self, site: str) -> bool:
        """Whether this site said that it only evaluates, whatever the config expects of it."""
        return self._roles.get(site) == "predict-only"

    def present(self, patience_s: float = QUERY_TIMEOUT_S) -> dict[str, int]:
        """Node id by site name, sorted by name; nodes that are new are asked who they are, and have `patience_s`.

        A site that was restarted may come back as another node while the old one is still listed: the old one is asked
        once more and dropped when it is silent. Raises FederationError when two live nodes give the same name.
        """
        connected = dict.fromkeys(sorted(self._grid.get_node_ids()))
        known = {node: name for node, name in self._names.items() if node in connected}
        self._names = dict(known)
        self._asked = {node: at for node, at in self._asked.items() if node in connected}
        recently = time.monotonic() - ASK_AGAIN_S
        new = [node for node in connected if node not in known and self._asked.get(node, recently) <= recently]
        self._ask(new, patience_s)
        newcomers = {name for node, name in self._names.items() if node not in known}
        if doubtful := [node for node, name in known.items() if name in newcomers]:
            for node in doubtful:
                del self._names[node]
            self._ask(doubtful, patience_s)
        sites: dict[str, int] = {}
        for node, name in sorted(self._names.items()):
            if name in sites:
                raise FederationError(f"two sites call themselves {name!r}; give each its own name in its site.yaml")
            sites[name] = node
        return dict(sorted(sites.items()))

    def wait_for(self, wanted: int, seconds: float, able: Callable[[str], bool], hoped: int = 0) -> dict[str, int]:
        """Wait until `wanted` of the sites that are `able` to train are there, and `hoped` of all sites; after
        `seconds` be content with `wanted`. A simulation engine's first answer may take as long as its actors' start.

        Raises FederationError naming the missing sites when fewer than `wanted` came.
        """
        deadline = time.monotonic() + seconds
        while True:
            sites = self.present(max(seconds, QUERY_TIMEOUT_S))
            absent = [name for name in self._expected if name not in sites]
            ready = sum(map(able, sites))
            if not absent or (ready >= wanted and len(sites) >= hoped):
                return sites
            if time.monotonic() >= deadline:
                break
            time.sleep(min(POLL_S, seconds))
        if ready < wanted and (missing := ", ".join(filter(able, absent))):
            raise FederationError(
                f"after {seconds:g} s only {ready} of the {wanted} sites a round needs are there, missing: "
                f"{missing}; start them, or lower federation.min_replies"
            )
        self._tell(f"after {seconds:g} s the run goes on without {', '.join(absent)}, who may still join")
        return sites

    def _ask(self, nodes: Sequence[int], patience_s: float) -> None:
        if not nodes:
            return
        content = RecordDict({"query": ConfigRecord({"version": __version__})})
        queries = [Message(content, dst_node_id=node, message_type=MessageType.QUERY) for node in nodes]
        self._asked.update(dict.fromkeys(nodes, time.monotonic()))
        for answer in self._grid.send_and_receive(queries, timeout=patience_s):
            node = answer.metadata.src_node_id
            try:
                reply = Reply.unpack(answer.content) if answer.has_content() else None
            except MalformedMessage:
                reply = None
            if node in nodes and (name := self._admit(reply)):
                self._names[node] = name
                self._roles[name] = reply.role if reply else "train"

    def _admit(self, reply: Reply | None) -> str | None:
        """The site's name, or None when this node is not asked to train."""
        if reply is None:
            self._tell("a node did not say which site it is and is left out; look into its own log")
            return None
        if reply.status != "ok":
            self._tell(f"{reply.site} cannot take part: {reply.reason}")
            return None
        if reply.version != __version__:
            self._tell(
                f"{reply.site} runs fed_fsad {reply.version} and the server {__version__}; install the same version"
            )
            return None
        if reply.site not in self._expected:
            self._tell(f"a site called {reply.site!r} is not in the config and is left out; add it under hospitals")
            return None
        return reply.site

    def _tell(self, text: str) -> None:
        """Warn, but of the same thing once."""
        if text not in self._said:
            self._said.add(text)
            self._warn(text)
