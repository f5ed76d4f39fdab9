"""`fed-fsad simulate`: a federation of hospitals on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fed_fsad.cli.options import Data, Overrides, ResumeMode, Trackers, with_data

if TYPE_CHECKING:
    from fed_fsad.rundir import RunDir


def simulate(
    config: Annotated[Path, typer.Argument()],
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME.")] = None,
    data: Data = None,
    set_: Overrides = None,
    resume: ResumeMode = "fresh",
    track: Trackers = None,
) -> None:
    """Train the federation of CONFIG on this machine, evaluate it, compare it, and write a report.

    CONFIG is a YAML file, e.g. configs/demo.yaml.
    """
    from fed_fsad.config import load_config  # imported late: `--help` should not wait for torch
    from fed_fsad.progress import make_progress
    from fed_fsad.tracking import Tracked
    from simulations.simulate import simulate as run_simulation

    settings = load_config(config, with_data(set_, data))
    console = Console()
    folder = out or Path("runs") / settings.name
    try:
        run = run_simulation(settings, folder, Tracked(make_progress(console), track or [], folder), resume)
    except KeyboardInterrupt:
        Console(stderr=True, soft_wrap=True).print(f"stopped; continue {escape(str(folder))} with --resume auto")
        raise
    print_result(console, run)


def print_result(console: Console, run: "RunDir") -> None:
    """The closing tables, the sites' privacy claims, and where the report lies."""
    summary = run.summary()
    for name, block in summary["methods"].items():
        console.print(closing_table(name, block))
    for site, block in summary["sites"].items():
        if block["claim"]:
            console.print(f"[bold]{site}[/]: {escape(block['claim'])}", highlight=False)
    if central := summary.get("hospital_privacy"):
        console.print(f"[bold]hospital level[/]: {escape(central['claim'])}", highlight=False)
    if summary["insecure_noise"]:
        console.print("[bold red]privacy noise was seeded: this run protects nobody[/]")
    console.print(f"\nreport: [bold]{escape(str(run.path / 'report.html'))}[/]", highlight=False, soft_wrap=True)


def closing_table(name: str, block: dict[str, Any]) -> Table:
    """Every arm and every simple baseline of one method, best first, whoever wins; then all shots or protocols."""
    table = Table(title=f"{name}: {block['headline_name']}", caption="* simple baseline", box=None, pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    table.add_column("detector", no_wrap=True)
    table.add_column("AUROC", justify="right")
    table.add_column("95 % interval")
    keys = list(block["image_auroc"])
    for key in keys:
        table.add_column(f"K={key}" if key.isdigit() else key, justify="right", style="dim")
    ranked = sorted({**block["arms"], **block["baselines"]}.items(), key=lambda row: -(row[1] or 0.0))
    for label, value in ranked:
        mine = label == "federated"
        interval = block["interval"] if mine else None
        table.add_row(
            label if label in block["arms"] else f"{label} *",
            _three_digits(value),
            f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "",
            *(_three_digits(block["each"].get(label, {}).get(key)) for key in keys),
            style="bold" if mine else "",
        )
    return table


def _three_digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
