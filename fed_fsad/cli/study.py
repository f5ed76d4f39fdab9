"""`fed-fsad study`: a grid of simulations behind one table and one report."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fed_fsad.cli.options import Data, Overrides, with_data

Out = Annotated[Path, typer.Option(help="Folder of the study: runs, results.csv, report.html; continued if it is one.")]
Jobs = Annotated[int | None, typer.Option(min=1, help="Cells at a time, each a process; default: the cores.")]
Memory = Annotated[
    float | None, typer.Option(min=0.1, help="GB that all cells together may take; default: 80 % of the machine's.")
]
Base = Annotated[Path | None, typer.Option(help="Config to start from in place of the study's own.")]
Only = Annotated[
    list[str] | None, typer.Option(help="Do only cells whose name matches, e.g. '*_seed0'; may be repeated.")
]


def study(
    file: Annotated[Path, typer.Argument()],
    out: Out,
    jobs: Jobs = None,
    memory: Memory = None,
    only: Only = None,
    base: Base = None,
    data: Data = None,
    set_: Overrides = None,
) -> None:
    """Run every cell of the study in FILE, and compare its arms in one table and one report.

    FILE is a YAML file, e.g. configs/studies/shots.yaml. Started again, a study goes on where it was.
    """
    from simulations.batch.budget import Limits, cores, most_memory  # imported late: `--help` should not wait for torch
    from simulations.study.run import study as run_study
    from simulations.study.settings import load_study

    settings = load_study(file, with_data(set_, data), base)
    console = Console()

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    limits = Limits(jobs or cores(), memory * 1e9 if memory else most_memory())
    try:
        run_study(settings, str(file), out, limits, only or [], say)
    except KeyboardInterrupt:
        Console(stderr=True, soft_wrap=True).print(f"stopped; the same command goes on in {escape(str(out))}")
        raise
    finally:
        if (out / "report.html").exists():
            say(f"table: {out / 'results.csv'}; report: {out / 'report.html'}")
