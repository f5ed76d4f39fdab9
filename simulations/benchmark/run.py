"""One command's worth of benchmark: its runs, their rows, its tables."""

from pathlib import Path

from fed_fsad.durable import replace
from fed_fsad.errors import FederationError
from fed_fsad.rundir import Resume
from simulations.benchmark.collect import collect
from simulations.benchmark.execute import Say, execute, open_folder
from simulations.benchmark.plan import BenchmarkSettings, plan
from simulations.benchmark.table import tables

NAMED = 5


def benchmark(settings: BenchmarkSettings, out: Path, jobs: int, resume: Resume, say: Say) -> str:
    """Do every run, write rows.csv, supports.csv and tables.md into `out`, and return the tables.

    A run that fails stops no other: the tables are then made of the others, and FederationError names the failed ones.
    Raises what `plan` and `open_folder` raise before anything is trained.
    """
    runs = plan(settings)
    open_folder(out, settings, resume)
    say(f"{len(runs)} runs: {', '.join(settings.names)}; {settings.seeds} seeds")
    failed = execute(runs, out, jobs, say)
    done = [run for run in runs if run.name not in failed]
    text = tables(collect(done, settings.method, out), settings) if done else ""
    replace(out / "tables.md", text.encode())
    if failed:
        named = "; ".join(f"{name}: {why}" for name, why in list(failed.items())[:NAMED])
        more = f" and {len(failed) - NAMED} more" if len(failed) > NAMED else ""
        raise FederationError(
            f"{len(failed)} of {len(runs)} runs failed ({named}{more}); mend that and continue with --resume auto"
        )
    return text
