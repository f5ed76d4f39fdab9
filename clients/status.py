"""`fed-fsad site status`: what the site's own files say of it; the server is not asked."""

from dataclasses import dataclass
from typing import Any

from clients import service
from clients.journal import answers
from clients.settings import SiteSettings
from fed_fsad.privacy.account import LEDGER, spent_so_far
from fed_fsad.privacy.policy import load_policy


@dataclass(frozen=True)
class SiteStatus:
    """pid, since: None when it does not run. last: the last answer, as in answers.jsonl. rounds: answered with an
    update. epsilon: spent in the ledger, None where there is none and the policy asks for none. budget: the policy's,
    None where it asks for no privacy; a server may ask for less in a run. trouble: the last answer with a warning or
    error. lost: why the server is out of reach, as far as Flower's output tells.
    """

    name: str
    role: str
    pid: int | None
    since: str | None
    connected: bool
    lost: str | None
    rounds: int
    last: dict[str, Any] | None
    trouble: dict[str, Any] | None
    epsilon: float | None
    budget: float | None


def status(settings: SiteSettings) -> SiteStatus:
    """Raises UserError subclasses when policy, ledger or state folder cannot be read."""
    state, policy = settings.state, load_policy(settings.policy)
    given, since, private = answers(state), service.since(state), policy.privacy != "off"
    connected = since is not None and service.connected(state)
    troubled = [line for line in given if line.get("trouble")]
    return SiteStatus(
        name=settings.name,
        role=settings.role,
        pid=service.daemon(state).pid(),
        since=since.isoformat(timespec="seconds") if since else None,
        connected=connected,
        lost=None if connected else service.trouble(state),
        rounds=sum(line.get("status") == "ok" for line in given),
        last=given[-1] if given else None,
        trouble=troubled[-1] if troubled else None,
        epsilon=spent_so_far(state) if private or (state / LEDGER).exists() else None,
        budget=policy.epsilon if private else None,
    )
