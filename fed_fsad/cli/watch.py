"""`fed-fsad watch`: the progress of a run that another terminal, or Flower, has started."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def watch(run: Annotated[Path, typer.Argument()]) -> None:
    """Show how the run in the directory RUN gets on until it ends; exit code 1 when it failed. Ctrl-C stops watching,
    never the run.
    """
    from fed_fsad.errors import FederationError  # imported late: `--help` should not wait for torch
    from fed_fsad.progress import make_progress
    from fed_fsad.rundir import RunDir
    from fed_fsad.watching import follow

    try:
        summary = follow(RunDir(run), make_progress(Console()))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    if summary["status"] != "completed":
        raise FederationError(summary["error"] or "the run failed; see its report.html")
    typer.echo(f"report: {run / 'report.html'}")
