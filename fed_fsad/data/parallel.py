"""Many files at once, answered in order: threads for what leaves Python's lock alone, processes for the rest."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import joblib

from fed_fsad.errors import DataError

Task = TypeVar("Task")
Answer = TypeVar("Answer")

THREADS = 4
"""Files decoded at once: enough to keep a disk busy, few enough for the memory that large images take."""
MOST_PROCESSES = 4
PATIENCE, PAYS = 3.0, 10.0
"""Seconds of work done and, by its pace, still to do, from which other processes are worth their start: each takes
one to two seconds and some 150 MB."""

LOST = (
    "a process that reads images was ended from outside, most often because memory ran out; give the machine more "
    "memory, or data.root fewer or smaller files"
)


def ordered(work: Callable[[Task], Answer], tasks: Sequence[Task], heavy: bool) -> Iterator[Answer]:
    """work(task) for each task, in their order; only a few are done ahead of the caller, so memory stays bounded.

    heavy: the work keeps Python's lock, so a long rest of it is given to processes; work and tasks must pickle.
    Raises what `work` raises, at the place of the task.
    """
    return _in_processes(work, tasks) if heavy else _in_threads(work, tasks)


def _in_threads(work: Callable[[Task], Answer], tasks: Sequence[Task]) -> Iterator[Answer]:
    waiting: deque[Future[Answer]] = deque()
    with ThreadPoolExecutor(THREADS) as threads:
        try:
            for task in tasks:
                waiting.append(threads.submit(work, task))
                if len(waiting) > 2 * THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)


def _in_processes(work: Callable[[Task], Answer], tasks: Sequence[Task]) -> Iterator[Answer]:
    """The first ones here; processes for the rest when that pays."""
    spent, processes = 0.0, min(joblib.cpu_count(), MOST_PROCESSES)
    for done, task in enumerate(tasks):
        if processes > 1 and spent > PATIENCE and spent / done * (len(tasks) - done) > PAYS:
            rest = (joblib.delayed(work)(later) for later in tasks[done:])
            try:
                yield from joblib.Parallel(processes, return_as="generator", pre_dispatch="2*n_jobs", batch_size=1)(
                    rest
                )
            except BrokenProcessPool as error:
                raise DataError(LOST) from error
            return
        started = time.monotonic()
        answer = work(task)
        spent += time.monotonic() - started
        yield answer
