"""How many runs may go on at a time: by cores, by memory as measured so far, one to a GPU where there are several."""

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass

from fed_fsad.config import Config

GIB = 2**30


@dataclass(frozen=True)
class Limits:
    """jobs: runs at a time. memory: bytes that all of them together may take; None = whatever they need."""

    jobs: int
    memory: float | None = None


def cores() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0))


def most_memory() -> float:
    """Bytes that runs may take when nobody says how much: four fifths of the machine's memory."""
    return 0.8 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def gpus(configs: Sequence[Config]) -> list[str]:
    """The GPUs to hand out one by one, as CUDA_VISIBLE_DEVICES names them; none where runs stay on processors, name a
    GPU themselves, or have just one to share.
    """
    if not any(config.machine.device in ("auto", "cuda") for config in configs):
        return []
    import torch  # imported late: planning on processors need not ask the driver

    stated = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = stated.split(",") if stated else [str(i) for i in range(torch.cuda.device_count())]
    return names if len(names) > 1 else []


class Budget:
    """Places for runs. Until one run has shown what it takes, a bound on memory lets only one go on."""

    def __init__(self, limits: Limits, own_gpus: Sequence[str], largest: int = 0) -> None:
        """largest: bytes that the largest run took which has ended so far; 0 = none has."""
        self._limits = limits
        self._gpus = list(own_gpus)
        self._most = min(limits.jobs, len(own_gpus)) if own_gpus else limits.jobs
        self._largest, self._running, self._stopped = largest, 0, False
        self._changed = threading.Condition()

    @property
    def lanes(self) -> int:
        """Runs that may go on at a time, as far as is known."""
        if self._limits.memory is None:
            return self._most
        return max(1, min(self._most, int(self._limits.memory // self._largest))) if self._largest else 1

    @contextmanager
    def place(self) -> Iterator[str | None]:
        """Wait for a place; what is yielded is the run's GPU, if it gets one. Raises CancelledError after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._running < self.lanes)
            if self._stopped:
                raise CancelledError
            self._running += 1
            gpu = self._gpus.pop(0) if self._gpus else None
        try:
            yield gpu
        finally:
            with self._changed:
                self._running -= 1
                self._gpus += [gpu] if gpu is not None else []
                self._changed.notify_all()

    def took(self, peak: int) -> None:
        """A run has ended that took `peak` bytes."""
        with self._changed:
            self._largest = max(self._largest, peak)
            self._changed.notify_all()

    def stop(self) -> None:
        """Nobody who waits gets a place any more."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
