"""Following a run directory that another process writes."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fed_fsad.progress import Progress
    from fed_fsad.rundir import RunDir

POLL_S = 0.5


def follow(run: "RunDir", progress: "Progress") -> dict[str, Any]:
    """Show every event of `run`, old and new, until its summary says how it ended; the summary is returned.

    Raises CheckpointError when no run lies there or its log is damaged.
    """
    rounds = run.config().federation.rounds
    with progress:
        progress({"kind": "start", "round": 0, "rounds": rounds})
        show(run, progress, 0, over=lambda: run.summary().get("status", "running") != "running")
    return run.summary()


def show(run: "RunDir", progress: "Progress", shown: int, over: Callable[[], bool]) -> None:
    """Show the events of `run` from number `shown` on as they come, until `over`; what was written by then included."""
    ended = False
    while not ended:
        ended, events = over(), run.events()
        for event in events[shown:]:
            progress(event)
        shown = len(events)
        if not ended:
            time.sleep(POLL_S)
