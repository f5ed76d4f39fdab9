"""`fed-fsad site`: what an engineer of a hospital needs, from the first check to the running site."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from clients.check import Line
    from clients.preview import Preview
    from clients.settings import SiteSettings

app = typer.Typer(help="A hospital's side: check, preview, start and stop it.", no_args_is_help=True)

SiteFile = Annotated[Path, typer.Argument(metavar="SITE_YAML", help="site.yaml of this site.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: JSON on standard output.")]
MARKS = {"ok": "[green]ok     [/]", "warn": "[yellow]warn   [/]", "fail": "[bold red]FAIL   [/]",
         "skipped": "[dim]skipped[/]"}  # fmt: skip
NOT_RUNNING = 3


@app.command()
def check(site: SiteFile, as_json: AsJson = False) -> None:
    """Look at everything that can be wrong: images, policy, budget, disk, clock, network, certificates.

    Each line says ok, warn or FAIL, why, and what to do. The exit code is 0 when nothing failed.
    """
    from clients.check import inspect  # imported late: `--help` should not wait for torch

    found: list[tuple[str, Line]] = []
    for name, line in inspect(site):
        found.append((name, line))
        if not as_json:
            _print_line(name, line)
    failed = sum(line.status == "fail" for _, line in found)
    if as_json:
        lines = [{"check": name, **dataclasses.asdict(line)} for name, line in found]
        typer.echo(json.dumps({"ok": not failed, "checks": lines}, indent=1))
    else:
        warned = sum(line.status == "warn" for _, line in found)
        typer.echo(f"\n{failed} failed, {warned} warnings" if failed or warned else "\neverything is in order")
    raise typer.Exit(1 if failed else 0)


def _print_line(name: str, line: "Line") -> None:
    console = Console(soft_wrap=True)
    console.print(f"{MARKS[line.status]} [bold]{name:<15}[/] {escape(line.text)}", highlight=False)
    if line.remedy:
        console.print(f"{'':<24}→ {escape(line.remedy)}", highlight=False)


@app.command()
def preview(
    site: SiteFile,
    config: Annotated[
        Path | None, typer.Option("--config", help="The run's federation.yaml; default: both methods' own settings.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train one round on a copy, without connecting, and list everything that would leave: tensors, figures, ε.

    Neither the ledger nor anything else of the site changes.
    """
    from clients.preview import preview as previewed
    from fed_fsad.config import load_config
    from fed_fsad.progress import make_progress

    with make_progress(Console(stderr=True)) as progress:
        found = previewed(site, load_config(config) if config else None, progress)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        _print_preview(found)


def _print_preview(found: "Preview") -> None:
    console = Console(soft_wrap=True, highlight=False)
    table = Table("method", "tensor", "shape", "dtype", "bytes", box=None, pad_edge=False)
    for tensor in found.tensors:
        shape = " x ".join(map(str, tensor.shape)) or "one number"
        table.add_row(tensor.method, tensor.name, shape, tensor.dtype, f"{tensor.bytes:,}")
    console.print(f"[bold]would leave: {len(found.tensors)} tensors, {found.bytes:,} bytes[/]")
    if found.tensors:
        console.print(table)
    console.print("\n[bold]would leave: figures and words[/]")
    for name, figures in found.figures.items():
        for key, value in figures.items():
            console.print(f"  {name} {key} = {value:g}")
    for key, value in found.texts.items():
        console.print(f"  {key} = {escape(str(value))}")
    if found.epsilon is not None:
        console.print(
            f"\n[bold]privacy:[/] ε is {found.epsilon[0]:.3g} now and {found.epsilon[1]:.3g} after this round"
        )
    if found.trouble:
        console.print(f"\n[bold yellow]said at the site only:[/] {escape(found.trouble)}")
    console.print("\n[bold]stays at this site[/]")
    for text in found.stays:
        console.print(f"  {text}")


@app.command()
def start(
    site: SiteFile,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay until stopped, output on the terminal: for systemd.")
    ] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the server's answer.")] = 90.0,
) -> None:
    """Connect this site to its server and answer rounds; in the background, until `fed-fsad site stop`."""
    from clients import service

    settings = _settings(site)
    if foreground:
        raise typer.Exit(service.run(site, settings))
    connected = service.start_connected(site, settings, wait, lambda text: typer.echo(text, err=True))
    own = service.daemon(settings.state)
    if connected:
        typer.echo(f"{settings.name} runs as process {own.pid()} and is connected to the server")
    else:
        typer.echo(f"{settings.name} runs as process {own.pid()}; no answer from the server yet, it goes on trying")
        typer.echo(f"why: fed-fsad site check {site}")
    typer.echo(f"its log: {own.log}")


@app.command()
def stop(
    site: SiteFile,
    wait: Annotated[float, typer.Option(help="Seconds to wait before it is killed.")] = 20.0,
) -> None:
    """End the site's process. What it has answered and spent stays; a round that it is in the middle of is lost."""
    from clients import service

    settings = _settings(site)
    if service.stop(settings.state, wait):
        typer.echo(f"{settings.name} is stopped")
    else:
        typer.echo(f"{settings.name} was not running")


@app.command()
def status(site: SiteFile, as_json: AsJson = False) -> None:
    """Whether the site runs, what it answered, and what is left of its privacy budget.

    The exit code is 0 when it runs and 3 when it does not.
    """
    from clients.status import status as status_of
    from fed_fsad.privacy.accounting import printed

    found = status_of(_settings(site))
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=1))
    else:
        running = f"running since {found.since} as process {found.pid}" if found.pid else "not running"
        typer.echo(f"site      {found.name} ({found.role})")
        typer.echo(f"process   {running}")
        lost = f": {found.lost}" if found.lost else ""
        typer.echo(f"server    {'connected' if found.connected else f'not connected{lost}'}")
        typer.echo(f"rounds    {found.rounds} answered with an update")
        if last := found.last:
            reason = f": {last['reason']}" if last["reason"] else ""
            typer.echo(f"last      round {last['round']} at {last['time']}: {last['status']}{reason}")
        if found.epsilon is not None and found.budget is not None:
            left = max(found.budget - found.epsilon, 0)
            typer.echo(
                f"privacy   ε = {printed(found.epsilon)} of {found.budget:g} spent, {left:.3g} left by the policy"
            )
        elif found.epsilon is not None:
            typer.echo(
                f"privacy   ε = {printed(found.epsilon)} spent under what servers asked for; no budget of its own"
            )
        if trouble := found.trouble:
            typer.echo(f"trouble   round {trouble['round']} at {trouble['time']}: {trouble['trouble']}")
    raise typer.Exit(0 if found.pid else NOT_RUNNING)


@app.command()
def keygen(site: SiteFile) -> None:
    """Make this site's key pair. Send the .pub file to the coordinator; the private key never leaves the site."""
    from clients.settings import connection
    from fed_fsad.provision.keys import fingerprint, make_node_keys

    private = connection(_settings(site)).key
    public = make_node_keys(private)
    typer.echo(f"private key: {private} (keep it here)")
    typer.echo(f"public key:  {public} (send it to the coordinator)")
    typer.echo(f"fingerprint: {fingerprint(public)} (read it to the coordinator on the telephone)")


def _settings(site: Path) -> "SiteSettings":
    from clients.settings import load_settings

    return load_settings(site)
