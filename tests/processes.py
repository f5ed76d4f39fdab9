"""What tests of real processes share: whether one runs, and waiting for what it does."""

import time
from collections.abc import Callable
from pathlib import Path


def wait(until: Callable[[], bool]) -> None:
    """Fails the test when it takes longer than half a minute."""
    deadline = time.monotonic() + 30
    while not until():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def running(pid: int) -> bool:
    """Whether a process runs; one that has ended and only waits to be asked for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
