"""`fed-fsad server`: the server's kit on the server's host, started, trained with, watched, stopped."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fed_fsad.cli.options import Overrides, ResumeMode, Trackers

app = typer.Typer(help="The server of a real federation: start it, train, look, stop.", no_args_is_help=True)
Kit = Annotated[Path, typer.Argument(help="The server's kit: the folder `server` that `provision` made.")]
COLOURS = {"online": "green", "offline": "yellow"}


@app.command()
def start(
    kit: Kit = Path(),
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay, and end when SuperLink or nginx ends; for systemd.")
    ] = False,
) -> None:
    """Start Flower's SuperLink on loopback and nginx before it, and register the sites.

    KIT is the folder `server` that `fed-fsad provision` made. What runs already stays as it is.
    """
    from server import service  # imported late: `--help` should not wait for Flower
    from server.kit import ServerKit

    opened = ServerKit.open(kit)
    say = partial(print, f"the server answers at https://{opened.address.address}:{opened.address.port}", flush=True)
    if foreground:
        service.watch(opened, say)
    else:
        service.start(opened)
        say()


@app.command()
def run(
    kit: Kit = Path(),
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME in the kit.")] = None,
    config: Annotated[Path | None, typer.Option(help="The run's config; default federation.yaml of the kit.")] = None,
    set_: Overrides = None,
    resume: ResumeMode = "fresh",
    track: Trackers = None,
) -> None:
    """Train the federation with the sites that are there, follow it, and write a report.

    KIT is the server's kit, whose server must run.
    """
    from fed_fsad.cli.simulate import print_result
    from fed_fsad.config import load_config
    from fed_fsad.progress import make_progress
    from fed_fsad.tracking import Tracked
    from server.kit import ServerKit
    from server.launch import run as run_federation

    opened = ServerKit.open(kit)
    settings = load_config(config or opened.folder / "federation.yaml", set_ or [])
    folder = out or opened.folder / "runs" / settings.name
    console = Console()
    try:
        progress = Tracked(make_progress(console), track or [], folder)
        finished = run_federation(opened, settings, folder, resume, progress)
    except KeyboardInterrupt:
        Console(stderr=True, soft_wrap=True).print(f"stopped; continue {escape(str(folder))} with --resume auto")
        raise
    print_result(console, finished)


@app.command()
def status(kit: Kit = Path(), as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False) -> None:
    """Whether the server runs, which sites are there, what was refused last; exit code 1 when it does not answer.

    KIT is the server's kit.
    """
    from server import service
    from server.kit import ServerKit

    found = service.status(ServerKit.open(kit))
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        _print_status(Console(), found)
    if not (found["superlink"]["answers"] and found["nginx"]["answers"]):
        raise typer.Exit(1)


@app.command()
def sync(kit: Kit = Path()) -> None:
    """Register keys that came into sites/ and unregister those that left it, while the server runs.

    KIT is the server's kit.
    """
    from server import service
    from server.kit import ServerKit

    for what, names in service.sync(ServerKit.open(kit)).items():
        Console().print(f"{what}: {', '.join(names) or 'none'}", highlight=False)


@app.command()
def stop(kit: Kit = Path()) -> None:
    """Stop nginx and the SuperLink; a run under way ends and can be resumed.

    KIT is the server's kit.
    """
    from server import service
    from server.kit import ServerKit

    stopped = service.stop(ServerKit.open(kit))
    Console().print(f"stopped: {', '.join(stopped)}" if stopped else "the server did not run", highlight=False)


def _print_status(console: Console, found: dict[str, Any]) -> None:
    for name in ("superlink", "nginx"):
        process = found[name]
        said = f"process {process['pid']}, {'answers' if process['answers'] else 'does not answer'}"
        console.print(f"[bold]{name}[/]: {said if process['pid'] else 'not running'}", highlight=False)
    console.print(f"[bold]address[/]: {found['address']}", highlight=False)
    table = Table("site", "state", box=None, pad_edge=False)
    for site, state in found["sites"].items():
        table.add_row(site, state, style=COLOURS.get(state, ""))
    console.print(table)
    for line in found["refused"]:
        console.print(f"refused: {escape(line)}", style="dim", highlight=False, soft_wrap=True)
