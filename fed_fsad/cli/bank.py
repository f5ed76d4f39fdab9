"""`fed-fsad bank`: support images encoded once and kept in a file."""

from pathlib import Path
from typing import Annotated

import typer

from fed_fsad.cli.bars import bars
from fed_fsad.cli.models import (
    MethodOption,
    Normal,
    ReadingText,
    Round,
    Run,
    Seed,
    Shots,
    Support,
    Task,
    encoded,
    kind_of,
    model_of,
)
from fed_fsad.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Support images encoded once and kept in a file.")

BankFile = Annotated[Path, typer.Argument(metavar="BANK", help="The bank's file.")]


@app.command("make")
def make(
    run: Run,
    support: Support,
    out: Annotated[Path, typer.Option("--out", help="The bank's file to write, e.g. bank.safetensors.")],
    method: MethodOption = None,
    round_: Round = None,
    shots: Shots = None,
    seed: Seed = 0,
    task: Task = None,
    normal: Normal = None,
    reading: ReadingText = None,
) -> None:
    """Encode support images with the model of a run and keep them in a file."""
    from fed_fsad.inference.banks import save_bank  # imported late: `--help` should not wait for torch

    if out.exists():
        raise ConfigError(f"{out} exists already; choose another --out, or use fed-fsad bank add")
    model = model_of(run, method, round_)
    with bars() as progress:
        named, _ = encoded(model, kind_of(model, task, normal, reading), support, shots, seed, progress)
    save_bank(out, named)
    typer.echo(f"{out}: {len(named.bank)} supports of {named.bank.task}")


@app.command("add")
def add(
    file: BankFile,
    run: Run,
    support: Support,
    round_: Round = None,
    normal: Normal = None,
    reading: ReadingText = None,
) -> None:
    """Encode further supports and add them to a bank; what is in it already is not encoded again."""
    from fed_fsad.inference.banks import load_bank, save_bank  # imported late: `--help` should not wait for torch

    model = model_of(run, load_bank(file).model["method"], round_)
    old = load_bank(file, model)
    with bars() as progress:
        new, _ = encoded(model, kind_of(model, old.bank.task, normal, reading), support, None, 0, progress)
    named = old.add(new)
    save_bank(file, named)
    typer.echo(
        f"{file}: {len(named.bank)} supports of {named.bank.task}, {len(named.bank) - len(old.bank)} of them new"
    )


@app.command("remove")
def remove(
    file: BankFile,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As fed-fsad bank show prints them.")],
) -> None:
    """Take supports out of a bank; nothing is encoded again."""
    from fed_fsad.inference.banks import load_bank, save_bank  # imported late: `--help` should not wait for torch

    named = load_bank(file).remove(names)
    save_bank(file, named)
    typer.echo(f"{file}: {len(named.bank)} supports of {named.bank.task}")


@app.command("show")
def show(file: BankFile) -> None:
    """Print what a bank holds and which model made it."""
    from fed_fsad.inference.banks import load_bank  # imported late: `--help` should not wait for torch

    named = load_bank(file)
    size = sum(tensor.nbytes for tensor in named.bank.tensors.values())
    typer.echo(f"{len(named.bank)} supports of {named.bank.task} for {named.model['method']}, {size:,} bytes")
    for name, categories in zip(named.names, named.bank.categories, strict=True):
        typer.echo(f"  {name} ({', '.join(categories) or 'normal'})")
