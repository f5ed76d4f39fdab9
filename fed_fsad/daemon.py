"""Processes that outlive the command that started them: found again by a pid file that they themselves keep locked."""

import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fed_fsad.errors import FederationError

PATIENCE_S = 20.0
STEP_S = 0.1
MARK = "FED_FSAD_DAEMON"
"""In the environment of a daemon and of all that it starts: names its pid file."""
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Daemon:
    """A background process called `name` in messages, with NAME.pid and NAME.log in `folder`.

    The process holds a lock on its pid file as long as it lives: a number that was left behind, or that another
    process got since, is never mistaken for it.
    """

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        """Where the process writes."""
        return self.folder / f"{self.name.lower()}.log"

    @property
    def _pid_file(self) -> Path:
        return self.folder / f"{self.name.lower()}.pid"

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Start it, in a session of its own, and return its process id. Raises FederationError when it runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if (running := self.pid()) is not None:
            raise FederationError(f"{self.name} runs already (process {running}); stop it first")
        self._end_leftovers()
        lock = os.open(self._pid_file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if not _locked(lock):
                raise FederationError(f"{self.name} is just being started by somebody else; look again in a moment")
            with self.log.open("ab") as log:
                process = subprocess.Popen(
                    command, env={**environment, MARK: str(self._pid_file.resolve())},
                    stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                    start_new_session=True, pass_fds=(lock,),
                )  # fmt: skip
            os.ftruncate(lock, 0)
            os.pwrite(lock, str(process.pid).encode(), 0)
            return process.pid
        finally:
            os.close(lock)

    def pid(self) -> int | None:
        """The process id, None when it does not run."""
        try:
            lock = os.open(self._pid_file, os.O_RDWR)
        except FileNotFoundError:
            return None
        try:
            pid = self._last_pid()
            return None if _locked(lock) or pid is None or not _exists(pid) else pid
        finally:
            os.close(lock)

    def stop(self, patience_s: float = PATIENCE_S) -> bool:
        """End it and what it started, gently at first. False when it did not run."""
        pid = self.pid()
        if pid is not None:
            _signal(os.kill, pid, signal.SIGTERM)
            deadline = time.monotonic() + patience_s
            while self.pid() is not None and time.monotonic() < deadline:
                time.sleep(STEP_S)
            _signal(os.killpg, pid, signal.SIGKILL)
            while self.pid() is not None:
                time.sleep(STEP_S)
        self._end_leftovers()
        return pid is not None

    def tail(self, lines: int = 5) -> str:
        """The last lines of the log that say something, in one line."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        last = [" ".join(COLOURS.sub("", line).split()) for line in text.splitlines()]
        return " | ".join([line for line in last if line][-lines:]) or "its log is empty"

    def _end_leftovers(self) -> None:
        """End what it started and left behind, also in sessions of their own, as Flower's helpers are."""
        for pid in _marked(f"{MARK}={self._pid_file.resolve()}".encode()):
            _signal(os.kill, pid, signal.SIGKILL)
        self._pid_file.unlink(missing_ok=True)

    def _last_pid(self) -> int | None:
        text = self._pid_file.read_text() if self._pid_file.exists() else ""
        return int(text) if text.isdecimal() else None


def end_others() -> None:
    """For a daemon itself: end all that it has started, in sessions of their own as well."""
    for pid in _marked(f"{MARK}={os.environ[MARK]}".encode()):
        if pid != os.getpid():
            _signal(os.kill, pid, signal.SIGKILL)


def _locked(handle: int) -> bool:
    """Whether the lock could be had, which means that nobody holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _exists(pid: int) -> bool:
    """Whether a process of that number does anything; one that only waits for its parent's notice does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True


def _marked(mark: bytes) -> list[int]:
    """Every process that was started with this entry in its environment, or by one that was."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in environ.read_bytes().split(b"\0"):
                found.append(int(environ.parent.name))
    return found


def _signal(send: Callable[[int, int], None], pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        send(pid, number)
