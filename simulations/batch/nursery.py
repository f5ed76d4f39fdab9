"""A process that has imported all that runs need, and forks itself for each: a run then starts in no time."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Self

from fed_fsad.errors import FederationError
from fed_fsad.switches import SWITCHES
from fed_fsad.tied import TIED

PROGRAM = "fed_fsad.cli"
"""What a run is: started by name, as a shell would, because it lies above this floor."""
LONGEST = 1 << 16
"""Bytes of an order at most."""


class Forked:
    """A run under way: `fed-fsad` in a process and a session of its own, tied to this process by its standard input."""

    def __init__(self, stdin: int, stdout: int, ended: socket.socket) -> None:
        self.stdin = os.fdopen(stdin, "wb", buffering=0)
        self.stdout = os.fdopen(stdout, encoding="utf-8", errors="replace")
        self._ended = ended

    def wait(self) -> tuple[int, int]:
        """Its exit code, or the signal that ended it below zero; bytes of memory at most."""
        with self._ended:
            told = self._ended.recv(LONGEST)
        code, peak = json.loads(told) if told else (-signal.SIGKILL, 0)
        return code, peak


class Nursery:
    """Starts runs on a number of threads, which must be stated before anything is imported; ends with this process.

    methods: what the runs train, imported beforehand as well.
    """

    def __init__(self, methods: Iterable[str], threads: int) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", __name__, *sorted(methods)]
        environment = {**SWITCHES, **os.environ, "OMP_NUM_THREADS": str(threads)}
        with theirs:
            self._process = subprocess.Popen(
                command, env=environment, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._orders.close()
        self._process.wait()

    def start(self, words: Sequence[str], environment: Mapping[str, str]) -> Forked:
        """`fed-fsad WORDS` with these variables added. Raises FederationError when the nursery is gone."""
        stdin, own_stdin = os.pipe()
        own_stdout, stdout = os.pipe()
        ended, theirs = socket.socketpair()
        order = json.dumps([list(words), {**environment, TIED: "1"}]).encode()
        try:
            socket.send_fds(self._orders, [order], [stdin, stdout, theirs.fileno()])
        except OSError as error:
            raise FederationError("the process that starts runs has ended; start the same command again") from error
        finally:
            os.close(stdin)
            os.close(stdout)
            theirs.close()
        return Forked(own_stdin, own_stdout, ended)


def attend(orders: socket.socket) -> list[str] | None:
    """Fork a run for every order. Returns once in each run, with its words, and None here when no order can come."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who watches over a run is waited for by nobody
    while True:
        order, handles, _, _ = socket.recv_fds(orders, LONGEST, 3)
        if not order:
            return None
        if os.fork() == 0:
            orders.close()
            return _watched(order, *handles)
        for handle in handles:
            os.close(handle)


def _watched(order: bytes, stdin: int, stdout: int, ended: int) -> list[str]:
    """Fork the run, and tell how it ends. Returns in the run only."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if (run := os.fork()) == 0:
        os.close(ended)
        return _settled(order, stdin, stdout)
    try:
        os.close(stdin)
        os.close(stdout)
        _, status, usage = os.wait4(run, 0)
        with suppress(OSError):  # nobody listens any more
            os.write(ended, json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024]).encode())
    finally:
        os._exit(0)


def _settled(order: bytes, stdin: int, stdout: int) -> list[str]:
    """Make this process what a shell would start."""
    os.setsid()
    for handle, place in ((stdin, 0), (stdout, 1), (stdout, 2)):
        os.dup2(handle, place)
    os.close(stdin)
    os.close(stdout)
    words, environment = json.loads(order)
    os.environ.update(environment)
    return list(words)


def main() -> None:
    """Import, fork, and in every fork be `fed-fsad`."""
    from fed_fsad import methods, tracking  # noqa: F401 - all of these for the runs' sake
    from simulations import simulate  # noqa: F401

    program = import_module(PROGRAM)
    for name in sys.argv[1:]:
        methods.settings_type(name)
    words = attend(socket.socket(fileno=os.dup(0)))
    if words is not None:
        sys.argv = ["fed-fsad", *words]
        program.main()


if __name__ == "__main__":
    main()
