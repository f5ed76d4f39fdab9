"""`fed-fsad simulate`: a federation of hospitals on this machine."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from fed_fsad.rundir import RunDir


def simulate(
    config: Annotated[Path, typer.Argument()],
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME.")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of your images; short for --set data.root=DIR.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override any key: --set federation.rounds=3.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out after a stop, bit for bit.")
    ] = False,
) -> None:
    """Train the federation of CONFIG on this machine, evaluate it, compare it, and write a report.

    CONFIG is a YAML file, e.g. configs/demo.yaml.
    """
    from fed_fsad.config import load_config  # imported late: `--help` should not wait for torch
    from fed_fsad.progress import make_progress
    from simulations.simulate import simulate as run_simulation

    # Quoted, because a path may hold what YAML would read as something else.
    overrides = [*(set_ or []), *([f"data.root={json.dumps(str(data), ensure_ascii=False)}"] if data else [])]
    settings = load_config(config, overrides)
    console = Console()
    folder = out or Path("runs") / settings.name
    try:
        run = run_simulation(settings, folder, make_progress(console), resume)
    except KeyboardInterrupt:
        Console(stderr=True, soft_wrap=True).print(f"stopped; continue {escape(str(folder))} with --resume")
        raise
    _print_result(console, run)


def _print_result(console: Console, run: "RunDir") -> None:
    summary = run.summary()
    for name, block in summary["methods"].items():
        console.print(closing_table(name, block))
    for site, block in summary["sites"].items():
        if block["claim"]:
            console.print(f"[bold]{site}[/]: {escape(block['claim'])}", highlight=False)
    if summary["insecure_noise"]:
        console.print("[bold red]privacy noise was seeded: this run protects nobody[/]")
    console.print(f"\nreport: [bold]{escape(str(run.path / 'report.html'))}[/]", highlight=False, soft_wrap=True)


def closing_table(name: str, block: dict[str, Any]) -> Table:
    """Every arm and every simple baseline of one method, best first, whoever wins."""
    table = Table(title=f"{name}: {block['headline_name']}", title_justify="left", box=None, pad_edge=False)
    table.add_column("detector")
    table.add_column("AUROC", justify="right")
    table.add_column("95 % interval")
    rows = {**block["arms"], **{f"{key} (baseline)": value for key, value in block["baselines"].items()}}
    for label, value in sorted(rows.items(), key=lambda row: -(row[1] or 0.0)):
        mine = label == "federated"
        interval = block["interval"] if mine else None
        table.add_row(
            label,
            "–" if value is None else f"{value:.3f}",
            f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "",
            style="bold" if mine else "",
        )
    return table
