"""Runs, each a `fed-fsad simulate` in a process of its own: one that dies takes no other with it."""

import re
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from fed_fsad.config import Config, resolved_yaml
from fed_fsad.durable import replace
from fed_fsad.errors import UserError
from fed_fsad.evaluation.report.words import duration
from fed_fsad.machine import SHARED
from fed_fsad.rundir import RunDir
from fed_fsad.tied import Tied, interruptible
from simulations.batch.budget import Budget, Limits, gpus
from simulations.batch.folder import add_cost, code, costs, run_folder
from simulations.batch.nursery import Forked, Nursery

SHOWN = re.compile(r"round \d|training from|warning|  \S.*\d\.\d{3}")
"""Lines of a run that are worth a person's eye: rounds, warnings and figures. All of them are kept."""
FEATURES = "features"
"""Folder of the features that runs on phantoms share, as long as the batch goes on."""
Say = Callable[[str], None]
Start = Callable[[str | None], Forked]
"""Starts a run, on that GPU if it gets one."""


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
    with interruptible(), ExitStack() as stack, ThreadPoolExecutor(limits.jobs) as pool:
        try:
            names = {name for run in todo for name in run.config.methods}
            counts = {run.config.threads for run in todo}
            nurseries = {threads: stack.enter_context(Nursery(names, threads)) for threads in counts}
            starts = {run.name: partial(_start, run, out, nurseries[run.config.threads], tied) for run in todo}
            under_way = {pool.submit(_run, run, out, budget, starts[run.name], say): run for run in todo}
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
    shutil.rmtree(out / FEATURES, ignore_errors=True)
    return {run.name: failed[run.name] for run in runs if run.name in failed}


def _settled(run: Job, out: Path, failed: dict[str, str]) -> bool:
    """Whether there is nothing to do: it is complete, or its folder belongs to other settings and so it has failed."""
    folder = run_folder(out, run.name)
    try:
        return (folder / "config.yaml").exists() and RunDir.resume(folder, run.config).status == "completed"
    except UserError as error:
        failed[run.name] = str(error)
        return True


def _run(run: Job, out: Path, budget: Budget, start: Start, say: Say) -> Ended:
    with budget.place() as gpu:
        ended = _followed(run, out, start, gpu, say)
    budget.took(ended.peak)
    return ended


def _start(run: Job, out: Path, nursery: Nursery, tied: Tied, gpu: str | None) -> Forked:
    """Features of phantoms are drawn from nobody, so that runs may share them on the disk without being asked to."""
    config = out / "configs" / f"{run.name}.yaml"
    replace(config, resolved_yaml(run.config).encode())
    own = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    if run.config.data.kind == "phantoms":
        own[SHARED] = str((out / FEATURES).resolve())
    words = ["simulate", str(config), "--out", str(run_folder(out, run.name)), "--resume", "auto"]
    return tied.start(lambda: nursery.start(words, own))


def _followed(run: Job, out: Path, start: Start, gpu: str | None, say: Say) -> Ended:
    lines, started = [""], time.monotonic()
    process = start(gpu)
    with process.stdin, process.stdout:
        for line in process.stdout:
            lines.append(line.rstrip())
            if SHOWN.match(line):
                say(f"{run.name}: {lines[-1]}")
    status, peak = process.wait()
    replace(out / "logs" / f"{run.name}.txt", "\n".join(lines[1:]).encode())
    last = next((line for line in reversed(lines) if line), "").removeprefix("error: ")
    problem = "" if status == 0 else last or f"ended with code {status}"
    return Ended(problem, time.monotonic() - started, peak)
