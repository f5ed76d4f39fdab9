"""`fed-fsad report`: the HTML page of a run."""

from pathlib import Path
from typing import Annotated

import typer


def report(run: Annotated[Path, typer.Argument()]) -> None:
    """Write report.html anew from what the run directory RUN holds, e.g. runs/demo; works while it is still going."""
    from fed_fsad.evaluation.report import write_report  # imported late: `--help` should not wait for matplotlib

    typer.echo(f"report: {write_report(run)}")
