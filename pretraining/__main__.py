"""`python -m pretraining teacher | clip | figures`."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from fed_fsad.assets import ROOT, asset
from fed_fsad.errors import UserError
from pretraining.build import make_clip, make_teacher
from pretraining.card import read_card
from pretraining.figures import deviations, embedded_tables

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
console = Console()
TOLERANCE = 0.005
"""Figures may move this much between machines, whose convolutions round differently."""

Seed = Annotated[int, typer.Option(min=0, help="Every draw follows from it.")]
Steps = Annotated[int, typer.Option(min=1, help="Gradient steps.")]
Images = Annotated[int, typer.Option(min=2, help="Test images behind every figure of the card.")]
Work = Annotated[Path, typer.Option(help="Where state files lie; a run that was broken off goes on from there.")]
Out = Annotated[Path, typer.Option(help="Where weights and card are written.")]
Real = Annotated[Path | None, typer.Option(help="Folder of real image sets for further figures.")]


@app.command()
def teacher(
    seed: Seed = 0,
    steps: Steps = 1600,
    images: Images = 60,
    work: Work = Path("runs/pretraining"),
    out: Out = ROOT,
    real: Real = None,
) -> None:
    """Train the embedded D²4FAD teacher on formula-made images."""
    console.print(make_teacher(seed, steps, images, work, out, real))


@app.command()
def clip(
    seed: Seed = 0,
    steps: Steps = 900,
    images: Images = 16,
    work: Work = Path("runs/pretraining"),
    out: Out = ROOT,
    corpus: Annotated[int, typer.Option(min=1, help="Phantoms to learn from.")] = 10000,
) -> None:
    """Train the embedded CLIP on phantoms, captions and signs."""
    console.print(make_clip(seed, steps, images, work, out, corpus))


@app.command()
def figures(real: Real = None) -> None:
    """Take the figures of both cards again from the embedded weights; exit code 1 when one is off its card."""
    cards = {name: read_card(asset(f"{name}/card.md")) for name in ("teacher", "clip")}
    found = embedded_tables(cards, real)
    console.print_json(data={name: dict(tables) for name, tables in found.items()})
    off = deviations(cards, found, TOLERANCE)
    for where, (stated, figure) in off.items():
        console.print(f"{where}: the card says {stated:.3f}, found {figure:.3f}")
    raise typer.Exit(int(bool(off)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        app()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
