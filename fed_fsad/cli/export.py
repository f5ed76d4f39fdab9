"""`fed-fsad export`: a trained detector for programs without PyTorch."""

from pathlib import Path
from typing import Annotated

import typer

from fed_fsad.cli.models import MethodOption, Round, Run
from fed_fsad.errors import ConfigError


def export(
    run: Run,
    out: Annotated[Path, typer.Option("--out", help="The ONNX file to write, e.g. model.onnx.")],
    method: MethodOption = None,
    round_: Round = None,
) -> None:
    """Write the detector of a run as ONNX: images and the tensors of a saved bank in, scores and maps out.

    The graph is run once beside PyTorch before it is written. Needs the extra `onnx`.
    """
    from fed_fsad.inference.onnx import export as exported  # imported late: `--help` should not wait for torch
    from fed_fsad.inference.trained import load_trained

    if out.exists():
        raise ConfigError(f"{out} exists already; choose another --out or remove it")
    model = load_trained(run, method, round_)
    typer.echo("writing the graph, which takes a minute", err=True)
    gap = exported(model, out)
    typer.echo(f"{out}: differs from PyTorch by {gap:.1e} at most; its bank is what fed-fsad bank make writes")
