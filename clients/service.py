"""The site as a running program: flower-supernode and its keeper started, watched and stopped, in the background or by
systemd.
"""

import errno
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import tomli_w

from clients.settings import Connection, SiteSettings, connection
from fed_fsad.daemon import COLOURS, PATIENCE_S, Daemon
from fed_fsad.durable import replace
from fed_fsad.errors import ConfigError, FederationError
from fed_fsad.switches import SWITCHES

NODE = "node.toml"
BINARIES = Path(sys.executable).parent
CONNECTED = "SuperNode ID:"
IN_TOUCH = (CONNECTED, "Connection successful", "Received successfully", "Sent successfully")
LOST = "Connection attempt failed"
ATTEMPT_S = 35.0
"""An attempt of Flower's to reach the server takes 30 s at most."""
AGAIN_S = 5.0
POLL_S = 0.2
_REFUSED = (
    "the server does not accept this site's key: either the site was killed less than a minute ago and still counts as "
    "connected (start it again in a minute), or the key was never registered or is revoked (send node.pub to the "
    "coordinator), or the clocks differ by more than 300 s (fed-fsad site check)"
)
SYMPTOMS = {
    "[code: 2004]": _REFUSED,
    "401 Unauthorized": _REFUSED,
    "SSL/TLS handshake error": (
        "the server's certificate is not trusted; fed-fsad site check says whether it is expired, of another "
        "authority, or for another name"
    ),
}
"""What Flower's supernode prints when it gives up, and what it means."""


def daemon(state: Path) -> Daemon:
    """The site's supernode: supernode.pid and supernode.log in the state folder."""
    return Daemon("supernode", state)


def start(site: Path, settings: SiteSettings) -> int:
    """Start the supernode in the background; its process id.

    Raises ConfigError without a server or a key, or when the state folder cannot be written, and FederationError
    when the site runs already.
    """
    server, state = _server(site, settings), settings.state
    own = daemon(state)
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        if own.log.exists() and own.pid() is None:
            own.log.replace(own.log.with_suffix(".log.1"))
        replace(state / NODE, tomli_w.dumps({"site-config": str(site.resolve())}).encode())
        return own.start(_command(server, state), _environment(state))
    except OSError as error:
        what = error.filename or state
        raise ConfigError(
            f"the site cannot start: {what}: {error.strerror}; grant the user of this program access, or make room"
        ) from error


def start_connected(site: Path, settings: SiteSettings, patience_s: float, say: Callable[[str], None]) -> bool:
    """Start the supernode in the background; whether it reaches the server within `patience_s`.

    For a minute after a kill the server takes the old connection for alive and refuses a new one: a site that was
    connected before tries again. Raises as `start`, and FederationError when the supernode ends.
    """
    state, deadline = settings.state, time.monotonic() + patience_s
    known, told = any(CONNECTED in line for line in _lines(state)), False
    while True:
        start(site, settings)
        try:
            return await_connection(state, deadline - time.monotonic())
        except FederationError as error:
            if not known or time.monotonic() + AGAIN_S > deadline:
                raise
            if not told:
                say(f"{error}; trying again for {patience_s:g} s")
            told = True
        time.sleep(AGAIN_S)


def run(site: Path, settings: SiteSettings) -> int:
    """Run the supernode until it ends or this process is told to stop; its exit code. Raises as `start`.

    What it says goes to the terminal (or to systemd) as well as to its log.
    """
    pid, own = start(site, settings), daemon(settings.state)
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, lambda number, frame: os.kill(pid, signal.SIGTERM))
    with own.log.open("rb") as log:
        while own.pid() is not None:
            _pass_on(log)
            time.sleep(POLL_S)
        _pass_on(log)
    own.stop()  # what it may have left behind
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def stop(state: Path, patience_s: float = PATIENCE_S) -> bool:
    """End the supernode and what it started: asked first, killed after `patience_s`; False when none was running.

    A kill in the middle of a round costs that round and no privacy: see fed_fsad/privacy/release.py.
    """
    return daemon(state).stop(patience_s)


def since(state: Path) -> datetime | None:
    """When the running supernode was started; None when none runs."""
    own = daemon(state)
    if own.pid() is None:
        return None
    return datetime.fromtimestamp((state / "supernode.pid").stat().st_mtime, UTC)


def connected(state: Path) -> bool:
    """Whether the running supernode is in touch with the server, by what it last said of it.

    It does not always say that it is back; but out of reach it would have complained again by a certain time.
    """
    said = [line for line in _lines(state) if any(word in line for word in (*IN_TOUCH, LOST))]
    if not any(CONNECTED in line for line in said):
        return False
    if LOST not in said[-1]:
        return True
    pause = float((re.findall(r"[\d.]+", said[-1].split(LOST)[1]) or ["0"])[0].rstrip("."))
    return time.time() > daemon(state).log.stat().st_mtime + pause + ATTEMPT_S


def await_connection(state: Path, patience_s: float) -> bool:
    """Whether the supernode reaches the server within `patience_s`. Raises FederationError when it ends instead."""
    own, deadline = daemon(state), time.monotonic() + patience_s
    while not connected(state):
        if own.pid() is None:
            raise FederationError(trouble(state) or f"the supernode ended; its last words in {own.log}: {own.tail()}")
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def trouble(state: Path) -> str | None:
    """What kept the last supernode from the server, with a remedy; None when its output tells of nothing known."""
    text = "\n".join(_lines(state))
    return next((sentence for symptom, sentence in SYMPTOMS.items() if symptom in text), None)


def _lines(state: Path) -> list[str]:
    with suppress(OSError):
        return COLOURS.sub("", daemon(state).log.read_text(encoding="utf-8", errors="replace")).splitlines()
    return []


def _pass_on(log: BinaryIO) -> None:
    with suppress(BrokenPipeError):  # nobody listens any more; the site goes on, and its log has it all
        sys.stdout.buffer.write(log.read())
        sys.stdout.flush()


def _server(site: Path, settings: SiteSettings) -> Connection:
    server = connection(settings)
    if not server.key.exists():
        raise ConfigError(f"the node key {server.key} is missing; make one with: fed-fsad site keygen {site}")
    if not server.ca.exists():
        raise ConfigError(f"the certificate {server.ca} is missing; ask the coordinator for ca.crt")
    return server


def _command(server: Connection, state: Path) -> list[str]:
    """The node's settings go through a file, which takes any path; its port is on loopback and free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    node = BINARIES / "flower-supernode"
    if not node.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(node))
    command = [sys.executable, "-P", "-m", "clients.keeper", str(node)]  # -P: nothing of the current folder is imported
    command += ["--superlink", server.address, "--port", str(port)]
    command += ["--root-certificates", str(server.ca), "--auth-supernode-private-key", str(server.key)]
    return [*command, "--node-config", str(state / NODE)]


def _environment(state: Path) -> dict[str, str]:
    path = os.pathsep.join([str(BINARIES), os.environ.get("PATH", "")])  # Flower starts its helpers by name
    return {**os.environ, **SWITCHES, "FLWR_HOME": str(state / "flower"), "PATH": path}
