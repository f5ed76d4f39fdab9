"""What the commands that use a trained run share: options, and the way from them to a model and its supports."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fed_fsad.cli.options import reading_of

if TYPE_CHECKING:
    from fed_fsad.data.samples import Sample
    from fed_fsad.inference.banks import NamedBank
    from fed_fsad.inference.images import Kind, Progress
    from fed_fsad.inference.trained import Trained

Run = Annotated[Path, typer.Option("--run", help="Run directory of the model, e.g. runs/demo.")]
MethodOption = Annotated[
    str | None, typer.Option("--method", help="d24fad or sdmad; needed when the run has trained both.")
]
Round = Annotated[int | None, typer.Option("--round", min=0, help="Model of this round; default: the last one.")]
Support = Annotated[
    Path,
    typer.Option("--support", help="Folder of normal images, or of one folder per class; or a CSV manifest."),
]
Task = Annotated[str | None, typer.Option("--task", help="What the images show; default: what the run's own showed.")]
Normal = Annotated[list[str] | None, typer.Option("--normal", help="Class that means: no anomaly. Repeatable.")]
ReadingText = Annotated[
    str | None, typer.Option("--reading", help="The group data.reading as in a config; default: the run's own.")
]
Shots = Annotated[int | None, typer.Option("--shots", min=1, help="Draw so many supports per class; default: all.")]
Seed = Annotated[int, typer.Option("--seed", help="Another seed draws other supports.")]


def model_of(run: Path, method: str | None, round_: int | None) -> "Trained":
    """The model of a run, in a process that gives the same bits each time."""
    from fed_fsad.inference.trained import load_trained
    from fed_fsad.seeds import reproducible

    model = load_trained(run, method, round_)
    reproducible(model.config.threads)
    return model


def kind_of(model: "Trained", task: str | None, normal: list[str] | None, reading: str | None) -> "Kind":
    """What the images show and how they are read, as the options say or as it was in the run."""
    from fed_fsad.inference.images import Kind

    chosen = model.reading if reading is None else reading_of(reading)
    return Kind(model.task(task), tuple(normal or model.normal), chosen)


def encoded(
    model: "Trained", kind: "Kind", path: Path, shots: int | None, seed: int, progress: "Progress"
) -> tuple["NamedBank", list["Sample"]]:
    """The supports under a path, all or `shots` of them, as a bank and as images."""
    from fed_fsad.inference.banks import encode
    from fed_fsad.inference.images import choose, find_supports

    found = find_supports(path, kind, progress)
    supports = choose(found, shots, seed, model.method.protocol)
    if left := sum(not sample.is_normal for sample in found) if model.method.protocol == "detection" else 0:
        warn(f"{left} abnormal support images are left out: {model.method.name} compares with normal ones only")
    return encode(model, supports, kind.task, partial(progress, "encoding supports")), supports


def warn(text: str) -> None:
    """A line on the terminal, apart from what the command prints for programs."""
    Console(stderr=True, soft_wrap=True).print(f"[yellow]warning:[/] {escape(text)}", highlight=False)
