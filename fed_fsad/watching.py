"""Following a run directory that another process writes."""

import time
from collections.abc import Callable
from typing import Any

from fed_fsad.progress import Progress
from fed_fsad.rundir import RunDir

POLL_S = 0.5


def follow(run: RunDir, progress: Progress, over: Callable[[], bool] | None = None) -> dict[str, Any]:
    """Show every event of `run`, old and new, until its summary says how it ended; the summary is returned.

    over: says that whoever wrote is gone; what was written until then is still shown. Raises CheckpointError when no
    run lies there or its log is damaged.
    """
    rounds, shown = run.config().federation.rounds, 0
    with progress:
        progress({"kind": "start", "round": 0, "rounds": rounds})
        while True:
            ended = bool(over and over()) or run.summary().get("status", "running") != "running"
            events = run.events()
            for event in events[shown:]:
                progress(event)
            shown = len(events)
            if ended:
                return run.summary()
            time.sleep(POLL_S)
