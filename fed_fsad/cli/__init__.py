"""The command `fed-fsad`: one group of commands per file."""

import logging
import os
import sys

import typer
from rich.console import Console
from rich.markup import escape

from fed_fsad.cli import (
    bank,
    benchmark,
    data,
    export,
    predict,
    privacy,
    provision,
    report,
    server,
    signs,
    simulate,
    site,
    study,
    watch,
)
from fed_fsad.errors import UserError
from fed_fsad.switches import SWITCHES
from fed_fsad.tied import heed

app = typer.Typer(
    name="fed-fsad",
    help="Federated few-shot medical anomaly detection: hospitals train together, their images stay where they are.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("simulate")(simulate.simulate)
app.command("study")(study.study)
app.command("report")(report.report)
app.command("predict")(predict.predict)
app.command("export")(export.export)
app.command("watch")(watch.watch)
app.add_typer(bank.app, name="bank")
app.add_typer(benchmark.app, name="benchmark")
app.add_typer(site.app, name="site")
app.add_typer(provision.app, name="provision")
app.add_typer(server.app, name="server")
app.add_typer(data.app, name="data")
app.add_typer(signs.app, name="signs")
app.add_typer(privacy.app, name="privacy")


@app.callback()
def options(verbose: bool = typer.Option(False, "--verbose", "-v", help="Show the sites' own logs as well.")) -> None:
    """Settings of every command."""
    for switch, value in SWITCHES.items():
        os.environ.setdefault(switch, value)
    screen = logging.StreamHandler()
    screen.setLevel(logging.INFO if verbose else logging.ERROR)  # a site's own log may listen to more
    logging.basicConfig(level=screen.level, format="%(name)s: %(message)s", handlers=[screen])


def main() -> None:
    """Entry point: an error the user can mend is one sentence on stderr and a non-zero exit code; 130 after Ctrl-C."""
    heed()
    try:
        app()
    except UserError as error:
        Console(stderr=True, soft_wrap=True).print("[bold red]error:[/]", escape(str(error)), highlight=False)
        sys.exit(error.exit_code)
