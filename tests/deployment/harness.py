"""A deployment of real processes in one folder: started through the commands of the page, watched, broken, ended."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fed_fsad.daemon import COLOURS, Daemon
from fed_fsad.rundir import RunDir
from server.proxy import FOLDERS
from tests.deployment.page import Page

PATIENCE_S = 400.0
BINARIES = Path(sys.executable).parent
SHELL = ("bash", "-euo", "pipefail", "-c")
SEARCH = os.pathsep.join([str(BINARIES), os.environ["PATH"], *FOLDERS])
ENVIRONMENT = {**os.environ, "PATH": SEARCH, "COLUMNS": "200"}
LOG_LINES = 25


class Deployment:
    """The folder in which a person follows the page, with free ports in place of the page's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kits = folder / "kits"
        self.server = self.kits / "server"
        self.port, self.superlink_port = free_ports(2)
        self.page = Page({"8443": self.port, "8000": self.superlink_port})
        self._processes: list[subprocess.Popen[bytes]] = []

    def follow(self, heading: str) -> str:
        """Run the page's commands under a heading; what they say."""
        return self.shell(self.page.take(heading))

    def shell(self, code: str, expect: int = 0, **environment: str) -> str:
        """Run shell code, which must end with that exit code; what it says on both outputs."""
        done = subprocess.run(
            [*SHELL, code], cwd=self.folder, env={**ENVIRONMENT, **environment}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == expect, f"exit code {done.returncode} of:\n{code}\n{done.stdout}"
        return done.stdout

    def background(self, code: str) -> subprocess.Popen[bytes]:
        """Run shell code in the background."""
        return self._started([*SHELL, code], self.folder / "background.log")

    def _started(self, command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            process = subprocess.Popen(
                command, cwd=self.folder, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores Ctrl-C
            )  # fmt: skip
        self._processes.append(process)
        return process

    def train(self, name: str, *options: str) -> "Training":
        """`fed-fsad server run` in the background, in the run directory `name`."""
        command = [str(BINARIES / "fed-fsad"), "server", "run", str(self.server), "--out", name, *options]
        log = self.folder / f"{name}.log"
        return Training(self._started(command, log), RunDir(self.folder / name), log)

    def site(self, name: str) -> "SiteProcess":
        """The site of a kit."""
        return SiteProcess(self.kits / name / "state")

    @property
    def superlink(self) -> Daemon:
        """Flower's SuperLink."""
        return Daemon("SuperLink", self.server / "var")

    @property
    def proxy(self) -> Daemon:
        """nginx."""
        return Daemon("nginx", self.server / "var")

    @contextmanager
    def nginx(self, configuration: str) -> Iterator[None]:
        """A second nginx, with another configuration in the server's kit."""
        command = ["nginx", "-p", f"{self.server}/", "-c", str(self.server / configuration), "-g", "daemon off;"]
        process = subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True)
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def cut(self, seconds: float) -> None:
        """Nothing gets through to the server for a while: nginx and its workers stand still."""
        pid = int(self.proxy.pid() or 0)
        os.killpg(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.killpg(pid, signal.SIGCONT)

    def end(self) -> None:
        """End everything, whatever happened to it."""
        for process in self._processes:
            process.kill()
            process.wait()
        for state in self.folder.glob("**/supernode.pid"):
            Daemon("supernode", state.parent).stop(1)
        for daemon in (self.proxy, self.superlink):
            daemon.stop(5)

    def logs(self) -> str:
        """The last lines of every log, for whoever has to find out why a test failed."""
        told = []
        for path in sorted(self.folder.glob("**/*.log")):
            lines = COLOURS.sub("", path.read_text(encoding="utf-8", errors="replace")).splitlines()
            told += [f"--- {path.relative_to(self.folder)}", *lines[-LOG_LINES:]]
        return "\n".join(told)


class SiteProcess:
    """What a test may see of a running site, and do to it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.daemon = Daemon("supernode", state)

    def said(self, name: str = "site.log") -> str:
        """One of its logs, "" before there is any."""
        path = self.state / name
        return COLOURS.sub("", path.read_text(encoding="utf-8", errors="replace")) if path.exists() else ""

    def works_on(self, round_: int) -> bool:
        """Whether it has been asked for that round and has not answered yet."""
        lines = [line for line in self.said("supernode.log").splitlines() if "ROUND" in line or "Sending" in line]
        return bool(lines) and lines[-1].endswith(f"ROUND {round_}]")

    def trains(self, run: RunDir, round_: int) -> bool:
        """Whether its app has read that round's question."""
        begun = (run.path / "environment.json").exists()
        return begun and f"run {run.run_id[:8]} round {round_}: asked" in self.said()

    def signal(self, number: signal.Signals) -> None:
        """To all its processes at once."""
        pid = self.daemon.pid()
        assert pid is not None, "the site does not run"
        os.killpg(pid, number)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It stands still meanwhile."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)


class Training:
    """A run that goes on."""

    def __init__(self, process: subprocess.Popen[bytes], run: RunDir, log: Path) -> None:
        self._process = process
        self.run = run
        self.log = log

    def events(self, kind: str, **wanted: Any) -> list[dict[str, Any]]:
        """Events of one kind so far that have these values."""
        if not (self.run.path / "config.yaml").exists():
            return []
        found = [event for event in self.run.events() if event["kind"] == kind]
        return [event for event in found if all(event.get(key) == value for key, value in wanted.items())]

    def wait(self, what: str, ready: Callable[[], object]) -> None:
        """Until `ready`; the run must not end before."""
        wait_until(what, ready, lambda: self._process.poll() is None, self.said)

    def ended(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.wait(timeout=PATIENCE_S)

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)

    def said(self) -> str:
        """What the command said."""
        return self.log.read_text(encoding="utf-8", errors="replace")


def wait_until(
    what: str, ready: Callable[[], object], alive: Callable[[], bool] = lambda: True, said: Callable[[], str] = str
) -> None:
    """Fails the test, saying for what it waited, when it takes too long or when what it waits for has died."""
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        lives = alive()
        if ready():
            return
        assert lives, f"ended before {what}:\n{said()}"
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s for {what}:\n{said()}"
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody uses now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
