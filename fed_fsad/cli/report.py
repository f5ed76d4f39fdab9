"""`fed-fsad report`: the HTML page of a run."""

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument(help="Run directory, e.g. runs/demo.")]) -> None:
    """Write report.html anew from what the run directory holds; works while a run is still going."""
    from fed_fsad.evaluation.report import write_report  # imported late: `--help` should not wait for matplotlib

    typer.echo(f"report: {write_report(run)}")
