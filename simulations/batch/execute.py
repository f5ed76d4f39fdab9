"""Runs, each a `fed-fsad simulate` of its own: one that dies takes no other with it."""

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple, Protocol

from fed_fsad.config import Config, resolved_yaml
from fed_fsad.durable import replace
from fed_fsad.errors import UserError
from fed_fsad.evaluation.report.words import duration
from fed_fsad.rundir import RunDir
from fed_fsad.tied import Tied, interruptible
from simulations.batch.budget import Budget, Limits, gpus
from simulations.batch.folder import add_cost, code, costs, run_folder

SHOWN = re.compile(r"round \d|training from|warning|  \S.*\d\.\d{3}")
"""Lines of a run that are worth a person's eye: rounds, warnings and figures. All of them are kept."""
Say = Callable[[str], None]


class Job(Protocol):
    """A run to do."""

    @property
    def name(self) -> str:
        """Its folder."""

    @property
    def config(self) -> Config:
        """All of its settings."""


class Ended(NamedTuple):
    """How a run ended: why it failed, or nothing; seconds of wall time; bytes of memory at most."""

    problem: str
    seconds: float
    peak: int


def execute(runs: Sequence[Job], out: Path, limits: Limits, say: Say) -> dict[str, str]:
    """Do what is not done yet within `limits`; what failed and why, by name. Completed runs are left alone.

    Runs under way end with this process: at Ctrl-C and SIGTERM, which is waited for, and when it is killed.
    """
    failed: dict[str, str] = {}
    todo = [run for run in runs if not _settled(run, out, failed)]
    if len(todo) + len(failed) < len(runs):
        say(f"{len(runs) - len(todo) - len(failed)} of {len(runs)} runs are complete already")
    largest = max((cost["peak"] for cost in costs(out).values()), default=0)
    budget, tied = Budget(limits, gpus([run.config for run in todo]), largest), Tied()
    with interruptible(), ThreadPoolExecutor(limits.jobs) as pool:
        try:
            under_way = {pool.submit(_run, run, out, budget, tied, say): run for run in todo}
            spent = 0.0
            for number, future in enumerate(as_completed(under_way), start=1):
                name, ended = under_way[future].name, future.result()
                spent += ended.seconds
                if ended.problem:
                    failed[name] = ended.problem
                else:
                    add_cost(out, name, {"seconds": ended.seconds, "peak": ended.peak, "code": code()})
                left = spent / number * (len(todo) - number) / budget.lanes
                done = len(runs) - len(todo) + number
                about = f", about {duration(left)} left" if left else ""
                say(f"[{done}/{len(runs)}] {name}: {ended.problem or 'complete'} ({duration(ended.seconds)}{about})")
        except BaseException:
            budget.stop()
            tied.stop()
            pool.shutdown(cancel_futures=True)
            raise
    return {run.name: failed[run.name] for run in runs if run.name in failed}


def _settled(run: Job, out: Path, failed: dict[str, str]) -> bool:
    """Whether there is nothing to do: it is complete, or its folder belongs to other settings and so it has failed."""
    folder = run_folder(out, run.name)
    try:
        return (folder / "config.yaml").exists() and RunDir.resume(folder, run.config).status == "completed"
    except UserError as error:
        failed[run.name] = str(error)
        return True


def _run(run: Job, out: Path, budget: Budget, tied: Tied, say: Say) -> Ended:
    with budget.place() as gpu:
        ended = _process(run, out, gpu, tied, say)
    budget.took(ended.peak)
    return ended


def _process(run: Job, out: Path, gpu: str | None, tied: Tied, say: Say) -> Ended:
    config = out / "configs" / f"{run.name}.yaml"
    replace(config, resolved_yaml(run.config).encode())
    folder = str(run_folder(out, run.name))
    command = [sys.executable, "-m", "fed_fsad.cli", "simulate", str(config), "--out", folder, "--resume", "auto"]
    own = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    environment = {**os.environ, "OMP_NUM_THREADS": str(run.config.threads), **own}
    lines, started = [""], time.monotonic()
    process = tied.start(command, environment)
    assert process.stdin is not None
    assert process.stdout is not None
    for line in process.stdout:
        lines.append(line.rstrip())
        if SHOWN.match(line):
            say(f"{run.name}: {lines[-1]}")
    process.stdin.close()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    replace(out / "logs" / f"{run.name}.txt", "\n".join(lines[1:]).encode())
    last = next((line for line in reversed(lines) if line), "").removeprefix("error: ")
    problem = "" if process.returncode == 0 else last or f"ended with code {process.returncode}"
    return Ended(problem, time.monotonic() - started, usage.ru_maxrss * 1024)
