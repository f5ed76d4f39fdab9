"""A SuperLink of our own on loopback: started, asked through Flower's command line, followed to the end of a run."""

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import tomli_w

from fed_fsad.daemon import Daemon
from fed_fsad.durable import replace
from fed_fsad.errors import FederationError
from fed_fsad.switches import SWITCHES
from fed_fsad.watching import show

if TYPE_CHECKING:  # the server starts and stops without torch
    from fed_fsad.progress import Progress
    from fed_fsad.rundir import RunDir

CONNECTION = "fed-fsad"
HOST = "127.0.0.1"
START_S = 60.0
POLL_S = 0.5
STATUS_S = 10.0
PATIENCE = 3
"""How often in a row Flower may fail to tell of a run before it is given up."""
BINARIES = Path(sys.executable).parent


@dataclass(frozen=True)
class SuperLink:
    """One SuperLink on `port` of 127.0.0.1.

    home: its FLWR_HOME, with the connection file. logs: where its log and process id lie. authority: the certificate
    authority of its certificate; None when it speaks plain HTTP, in a simulation.
    """

    home: Path
    logs: Path
    port: int
    authority: Path | None = None

    @property
    def daemon(self) -> Daemon:
        """The background process."""
        return Daemon("SuperLink", self.logs)

    @property
    def environment(self) -> dict[str, str]:
        """For every process of Flower's: our switches, its home, and the folder of its helpers on the PATH."""
        path = os.pathsep.join([str(BINARIES), os.environ.get("PATH", "")])
        return {**os.environ, **SWITCHES, "FLWR_HOME": str(self.home), "PATH": path}

    def start(self, options: Sequence[str]) -> None:
        """Start it and wait until it answers. Raises FederationError with the last lines of its log."""
        check_free(HOST, self.port, "superlink_port")
        self.write_connection()
        command = [str(BINARIES / "flower-superlink"), *options, "--host", HOST, "--port", str(self.port)]
        self.daemon.start([*command, "--disable-runtime-dependency-installation"], self.environment)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.daemon.pid() is not None:
            if self.healthy():
                return
            time.sleep(POLL_S)
        said = self.daemon.tail()
        self.daemon.stop()
        raise FederationError(f"Flower's SuperLink did not start; {self.daemon.log} ends with: {said}")

    def healthy(self) -> bool:
        """Whether it answers."""
        scheme = "http" if self.authority is None else "https"
        verify = ssl.create_default_context(cafile=self.authority) if self.authority else False
        try:
            return httpx.get(f"{scheme}://{HOST}:{self.port}/health", timeout=2.0, verify=verify).is_success
        except httpx.HTTPError:
            return False

    def write_connection(self) -> None:
        """Flower's connection file, which wants absolute paths and so follows the folder wherever it is moved."""
        connection: dict[str, Any] = {"address": f"{HOST}:{self.port}"}
        connection |= {"root-certificates": str(self.authority)} if self.authority else {"insecure": True}
        content = tomli_w.dumps({"superlink": {"default": CONNECTION, CONNECTION: connection}})
        replace(self.home / "config.toml", f"# Written anew whenever the SuperLink is started.\n{content}".encode())

    def flwr(self, *arguments: str) -> dict[str, Any]:
        """What `flwr ARGUMENTS` answers. Raises FederationError with Flower's own words."""
        command = [str(BINARIES / "flwr"), *arguments, "--format", "json"]
        finished = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        start = finished.stdout.find("{")
        answer: dict[str, Any] = json.loads(finished.stdout[start:]) if start >= 0 else {}
        if finished.returncode or not answer.get("success"):
            reason = str(answer.get("error-message") or finished.stderr or finished.stdout)
            called = " ".join(arguments[:2]) if arguments[0] == "supernode" else arguments[0]
            raise FederationError(f"`flwr {called}` failed ({' '.join(reason.split())}); see {self.daemon.log}")
        return answer

    def submit(self, app: Path, run: "RunDir", *options: str) -> str:
        """Hand over a run that lies in its folder already, and return Flower's number of it."""
        settings = {"config": str(run.path / "config.yaml"), "out": str(run.path), "resume": "require"}
        path = self.home / "run.toml"
        replace(path, tomli_w.dumps(settings).encode())
        return str(self.flwr("run", str(app), CONNECTION, "--run-config", str(path), *options)["run-id"])

    def status(self, identity: str) -> tuple[str, str]:
        """What Flower says of a run: e.g. "running" or "finished:failed", and why."""
        told = self.flwr("list", CONNECTION, "--run-id", identity)["runs"][0]
        return str(told["status"]), str(told.get("status-details") or "no reason given")

    def follow(self, run: "RunDir", identity: str, progress: "Progress") -> None:
        """Show what the run writes until Flower says that it is over, whichever way.

        Raises FederationError when Flower tells no more, and when the run ended without having completed.
        """
        done = max((line["round"] for line in run.events() if line["kind"] == "round" and line["complete"]), default=0)
        progress({"kind": "start", "round": done, "rounds": run.config().federation.rounds})
        ending = _Ending(self, run, identity)
        show(run, progress, len(run.events()), over=ending.reached)
        if run.status != "completed":
            early = f"Flower ended the run early ({ending.details}); see {self.daemon.log}"
            raise FederationError(run.summary().get("error") or early)


class _Ending:
    """Whether a run is over by Flower's word, which is asked for seldom, because an answer takes seconds."""

    def __init__(self, superlink: SuperLink, run: "RunDir", identity: str) -> None:
        self.details = ""
        self._superlink, self._run, self._identity = superlink, run, identity
        self._before, self._asked, self._failures = run.summary(), time.monotonic(), 0

    def reached(self) -> bool:
        """Raises FederationError when the SuperLink has ended, or does not answer several times in a row."""
        if time.monotonic() - self._asked <= STATUS_S and self._run.summary() == self._before:
            return False
        try:
            status, self.details = self._superlink.status(self._identity)
            self._failures = 0
        except FederationError as error:
            status = "unknown"
            self._failures += 1
            daemon = self._superlink.daemon
            if daemon.pid() is None:
                said = f"the SuperLink has ended; {daemon.log} ends with: {daemon.tail()}"
                raise FederationError(f"{said}; go on with --resume auto, a server started again first") from error
            if self._failures == PATIENCE:
                raise
        self._asked = time.monotonic()
        return status.startswith("finished")


def check_free(host: str, port: int, key: str) -> None:
    """Raise FederationError when something listens on the port already, or when it cannot be had."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except PermissionError as error:
            raise FederationError(f"port {port} is below 1024 and not for this user; choose another {key}") from error
        except OSError as error:
            raise FederationError(
                f"port {port} is taken by another process ({error.strerror}); end that one, or choose another {key}"
            ) from error


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
