"""Which run the server is busy with, noted beside its SuperLink; known without reading any configuration."""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from fed_fsad.durable import replace
from fed_fsad.errors import FederationError
from server.kit import ServerKit
from server.superlink import CONNECTION


@dataclass(frozen=True)
class CurrentRun:
    """run: Flower's number of it. out: its run directory."""

    run: str
    out: str


def remember(kit: ServerKit, current: CurrentRun) -> None:
    """Note it, in place of the one before."""
    replace(_path(kit), json.dumps(asdict(current)).encode())


def recall(kit: ServerKit) -> CurrentRun | None:
    """The last run that was handed over since the SuperLink was started; it may be over."""
    path = _path(kit)
    return CurrentRun(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def abandon(kit: ServerKit) -> None:
    """End the run that a SuperLink before this one was busy with: Flower takes it for alive for another minute, though
    what trained it died with that SuperLink.
    """
    if (current := recall(kit)) is not None:
        with suppress(FederationError):  # it was over, or the database was removed and the run with it
            kit.superlink.flwr("stop", current.run, CONNECTION)
        _path(kit).unlink()


def _path(kit: ServerKit) -> Path:
    return kit.var / "current-run.json"
