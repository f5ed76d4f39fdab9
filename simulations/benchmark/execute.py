"""The runs of a benchmark, each a `fed-fsad simulate` of its own: one that dies takes no other with it."""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import yaml

from fed_fsad.config import resolved_yaml
from fed_fsad.durable import replace
from fed_fsad.errors import CheckpointError, UserError
from fed_fsad.rundir import Resume, RunDir, first_difference
from simulations.benchmark.plan import BenchmarkSettings, Planned

SETTINGS = "benchmark.yaml"
SHOWN = re.compile(r"round \d|training from|warning|  \S.*\d\.\d{3}")
"""Lines of a run that are worth a person's eye: rounds, warnings and figures. All of them are kept."""
Say = Callable[[str], None]


def open_folder(out: Path, settings: BenchmarkSettings, resume: Resume) -> None:
    """Make `out` the folder of this benchmark, or find that it is.

    Raises CheckpointError when it holds a benchmark that must not or cannot be continued, or none that was asked for.
    """
    path, plain = out / SETTINGS, settings.model_dump(mode="json")
    if not path.exists():
        if resume == "require":
            raise CheckpointError(f"{out} holds no benchmark to resume; use --resume fresh or auto, or check the path")
        try:
            replace(path, yaml.safe_dump(plain, sort_keys=False).encode())
        except OSError as error:
            raise CheckpointError(f"{out} cannot be written ({error.strerror}); choose another --out") from error
        return
    if difference := first_difference(yaml.safe_load(path.read_text(encoding="utf-8")), plain):
        raise CheckpointError(f"{out} holds another benchmark: {difference}; choose another --out")
    if resume == "fresh":
        raise CheckpointError(f"{out} already holds this benchmark; add --resume auto, or choose another --out")


def execute(runs: Sequence[Planned], out: Path, jobs: int, say: Say) -> dict[str, str]:
    """Do what is not done yet, `jobs` runs at a time; what failed and why, by name. Completed runs are left alone."""
    failed: dict[str, str] = {}
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for number, (run, problem) in enumerate(zip(runs, pool.map(partial(_run, out, say), runs), strict=True)):
                if problem:
                    failed[run.name] = problem
                say(f"[{number + 1}/{len(runs)}] {run.name}: {problem or 'complete'}")
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # the runs under way were interrupted with this process
            raise
    return failed


def run_folder(out: Path, run: Planned) -> Path:
    """Where a run of the benchmark lies."""
    return out / "runs" / run.name


def _run(out: Path, say: Say, run: Planned) -> str:
    """Empty, or why it failed."""
    folder = run_folder(out, run)
    try:
        if (folder / "config.yaml").exists() and RunDir.resume(folder, run.config).status == "completed":
            return ""
    except UserError as error:
        return str(error)
    config = out / "configs" / f"{run.name}.yaml"
    replace(config, resolved_yaml(run.config).encode())
    command = [sys.executable, "-m", "fed_fsad.cli", "simulate", str(config), "--out", str(folder), "--resume", "auto"]
    lines = [""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            if SHOWN.match(line):
                say(f"{run.name}: {lines[-1]}")
    replace(out / "logs" / f"{run.name}.txt", "\n".join(lines[1:]).encode())
    said = next((line for line in reversed(lines) if line), "").removeprefix("error: ")
    return "" if process.returncode == 0 else said or f"ended with code {process.returncode}"
