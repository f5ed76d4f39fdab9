"""One command's worth of benchmark: its runs, their rows, its tables."""

from pathlib import Path

from fed_fsad.durable import replace
from fed_fsad.rundir import Resume
from simulations.batch.budget import Limits
from simulations.batch.execute import Say, execute
from simulations.batch.folder import only_command, open_folder
from simulations.batch.table import check_failed
from simulations.benchmark.collect import collect
from simulations.benchmark.plan import BenchmarkSettings, plan
from simulations.benchmark.table import tables


def benchmark(settings: BenchmarkSettings, out: Path, jobs: int, resume: Resume, say: Say) -> str:
    """Do every run, write rows.csv, supports.csv and tables.md into `out`, and return the tables.

    A run that fails stops no other: the tables are then made of the others, and FederationError names the failed ones.
    Raises what `plan` and `open_folder` raise before anything is trained.
    """
    runs = plan(settings)
    open_folder(out, settings.model_dump(mode="json"), "benchmark", resume)
    say(f"{len(runs)} runs: {', '.join(settings.names)}; {settings.seeds} seeds")
    with only_command(out, "benchmark"):
        failed = execute(runs, out, Limits(jobs), say)
        done = [run for run in runs if run.name not in failed]
        text = tables(collect(done, settings.method, out), settings) if done else ""
        replace(out / "tables.md", text.encode())
    check_failed(failed, len(runs), "mend that and continue with --resume auto")
    return text
