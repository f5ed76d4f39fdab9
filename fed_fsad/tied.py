"""Processes that end with the one that started them, however that one ends."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import IO, Any, Protocol, TypeVar

PATIENCE_S = 20.0
TIED = "FED_FSAD_TIED"
"""In the environment of a tied process: it is to end when its standard input does."""


class Started(Protocol):
    """A process under way whose program calls `heed`, started with TIED in its environment and in a session of its own.

    stdin: open as long as it may go on.
    """

    @property
    def stdin(self) -> IO[Any] | None:
        """Its standard input."""


P = TypeVar("P", bound=Started)


class Tied:
    """Processes under way, which end when their standard input does: by `stop`, and by the death of this process."""

    def __init__(self) -> None:
        self._processes: list[Started] = []
        self._stopped = False
        self._lock = threading.Lock()

    def start(self, launch: Callable[[], P]) -> P:
        """What `launch` starts. Raises CancelledError after `stop`."""
        with self._lock:
            if self._stopped:
                raise CancelledError
            process = launch()
            self._processes.append(process)
            return process

    def stop(self) -> None:
        """End all that go on, as Ctrl-C would, and start none any more."""
        with self._lock:
            self._stopped = True
            for process in self._processes:
                if process.stdin is not None:
                    process.stdin.close()


def heed() -> None:
    """To be called by a program first of all: where it was started tied, it ends when its standard input does."""
    if os.environ.pop(TIED, None):
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
        threading.Thread(target=_end_with_input, daemon=True).start()


def _end_with_input() -> None:
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGINT)
    time.sleep(PATIENCE_S)
    with suppress(ProcessLookupError):
        os.killpg(0, signal.SIGKILL)


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, SIGTERM is what Ctrl-C is: KeyboardInterrupt. For the main thread only."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
