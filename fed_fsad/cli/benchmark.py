"""`fed-fsad benchmark`: many simulations behind one table, for either method."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from fed_fsad.cli.options import Overrides, ResumeMode
from fed_fsad.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Measure a method over tasks, seeds and support draws, in one table.")

Tasks = Annotated[
    list[str] | None, typer.Option("--task", help="A data set on disk, NAME=DIR; once per task. NAME finds its signs.")
]
Phantoms = Annotated[str | None, typer.Option(help="Phantom organs in place of data sets: oct,fundus, or `all`.")]
Out = Annotated[Path, typer.Option(help="Folder of the benchmark: runs, rows.csv, supports.csv, tables.md.")]
Shots = Annotated[str, typer.Option(help="K, the support images per class; all are measured on one model.")]
Seeds = Annotated[int, typer.Option(min=1, help="How many seeds, from 0 on; each is a model of its own.")]
Draws = Annotated[int, typer.Option(min=1, help="Support sets per K and seed.")]
Arms = Annotated[str, typer.Option(help="Trained beside federated, which always is: pooled,local.")]
Train = Annotated[int | None, typer.Option(min=1, help="At most so many train images per hospital and class.")]
Test = Annotated[
    int | None, typer.Option(min=1, help="At most so many test images per task and class; phantoms: normal, abnormal.")
]
Jobs = Annotated[int, typer.Option(min=1, help="Runs at a time, each a process of its own.")]


@app.command()
def d24fad(
    out: Out,
    task: Tasks = None,
    phantoms: Phantoms = None,
    shots: Shots = "1,2,4,8,16",
    seeds: Seeds = 5,
    draws: Draws = 10,
    arms: Arms = "pooled,local,federated",
    train_normals: Train = None,
    test: Test = None,
    set_: Overrides = None,
    jobs: Jobs = 1,
    resume: ResumeMode = "fresh",
) -> None:
    """Leave one task out: train on the normal images of the others, one hospital each, and detect on the unseen one."""
    own = {"train": train_normals, "test": test, "set": set_ or []}
    _run("d24fad", task, phantoms, (shots, seeds, draws, arms), own, out, jobs, resume)


@app.command()
def sdmad(
    out: Out,
    task: Tasks = None,
    phantoms: Phantoms = None,
    shots: Shots = "1,2,4,8,16",
    seeds: Seeds = 5,
    draws: Draws = 3,
    arms: Arms = "pooled,local,federated",
    hospitals: Annotated[int, typer.Option(min=1, help="Hospitals per task.")] = 2,
    held_out: Annotated[
        list[str] | None, typer.Option(help="A category nobody trains on, or `each`: all in turn. May be repeated.")
    ] = None,
    ablations: Annotated[str, typer.Option(help="Also train less: context_only,no_signs.")] = "context_only,no_signs",
    train: Train = None,
    test: Test = None,
    set_: Overrides = None,
    jobs: Jobs = 1,
    resume: ResumeMode = "fresh",
) -> None:
    """Tell categories apart: all tasks trained together, protocols P1 to P3, binary and held-out categories."""
    own = {
        "train": train,
        "test": test,
        "set": set_ or [],
        "hospitals": hospitals,
        "held_out": held_out or [],
        "ablations": _listed(ablations),
    }
    _run("sdmad", task, phantoms, (shots, seeds, draws, arms), own, out, jobs, resume)


def _run(
    method: str,
    tasks: list[str] | None,
    phantoms: str | None,
    sizes: tuple[str, int, int, str],
    own: dict[str, Any],
    out: Path,
    jobs: int,
    resume: Any,
) -> None:
    from pydantic import ValidationError  # imported late: `--help` should not wait for torch

    from fed_fsad.data.phantoms import ORGANS
    from fed_fsad.explain import explain
    from simulations.benchmark.plan import BenchmarkSettings
    from simulations.benchmark.run import benchmark

    shots, seeds, draws, arms = sizes
    raw = {
        "method": method,
        "tasks": dict(map(_task, tasks or [])),
        "phantoms": list(ORGANS) if phantoms == "all" else _listed(phantoms or ""),
        "shots": _listed(shots),
        "seeds": seeds,
        "draws": draws,
        "arms": _listed(arms),
        **own,
    }
    try:
        settings = BenchmarkSettings.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(explain(error, BenchmarkSettings)) from error
    console = Console()

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    try:
        text = benchmark(settings, out, jobs, resume, say)
    except KeyboardInterrupt:
        Console(stderr=True, soft_wrap=True).print(f"stopped; continue {escape(str(out))} with --resume auto")
        raise
    say(text)
    say(f"rows: {out / 'rows.csv'}; supports: {out / 'supports.csv'}; tables: {out / 'tables.md'}")


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _task(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not equals or not name or not folder:
        raise ConfigError(f"--task {text}: write it as NAME=DIR, e.g. --task brain_mri=data/brain_mri")
    return name, str(Path(folder).expanduser().resolve())
