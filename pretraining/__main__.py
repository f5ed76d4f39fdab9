"""`python -m pretraining teacher | distil | student | clip | figures | curves`."""

from pathlib import Path
from typing import Annotated

import torch
import typer
from pydantic import ValidationError
from rich.console import Console

from fed_fsad.assets import ROOT, asset
from fed_fsad.errors import ConfigError, UserError
from fed_fsad.methods.d24fad.backbones import build_teacher
from fed_fsad.methods.d24fad.settings import TeacherSettings
from fed_fsad.methods.d24fad.teacher import Teacher
from pretraining.build_clip import make_clip
from pretraining.build_student import make_student
from pretraining.build_teacher import make_distilled, make_teacher
from pretraining.card import read_card
from pretraining.curves import curves as learning_curves
from pretraining.figures import CARD_SEEDS, Measures, deviations, embedded_tables
from pretraining.presets import CLIP, DISTILLED, STUDENT, TEACHER, Preset, Run

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)
console = Console()
TOLERANCE = 0.005
"""Figures may move this much between machines, whose convolutions round differently."""

Seed = Annotated[int, typer.Option(min=0, help="Every draw follows from it.")]
PresetName = Annotated[Preset, typer.Option("--preset", help="cpu: an hour or two on two cores; gpu: minutes.")]
Images = Annotated[int | None, typer.Option(min=1, help="Images to learn from, in place of the preset's.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Gradient steps, in place of the preset's.")]
Count = Annotated[int, typer.Option(min=2, help="Test images of each label behind every figure of the card.")]
Folder = Annotated[Path, typer.Option(help="Where state files lie.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the state file that a broken-off run left.")]
Out = Annotated[Path, typer.Option(help="Where weights and card are written.")]
Real = Annotated[Path | None, typer.Option(help="Folder of real image sets for further figures.")]
Reference = Annotated[str, typer.Option(help="The ResNet-50's weights: torchvision's name for them, or a file.")]
Rival = Annotated[str | None, typer.Option(help="A ResNet-50's weights, to stand beside the teacher.")]
Variant = Annotated[str, typer.Option(help="The ResNet-50's variant, v1.5 (torchvision's) or v1 (Caffe's).")]
WORK = Path("runs/pretraining")


@app.command()
def teacher(
    seed: Seed = 0,
    preset: PresetName = Preset.CPU,
    steps: Steps = None,
    count: Count = 100,
    work: Folder = WORK,
    resume: Resume = False,
    out: Out = ROOT,
    real: Real = None,
    reference: Rival = None,
    variant: Variant = "v1.5",
) -> None:
    """Train the embedded D²4FAD teacher on formula-made families."""
    run = Run(seed, TEACHER[preset].changed(None, steps), work, out, resume)
    console.print(
        make_teacher(run, Measures(count, CARD_SEEDS, real, _resnet50(reference, variant) if reference else None))
    )


@app.command()
def distil(
    seed: Seed = 0,
    preset: PresetName = Preset.CPU,
    images: Images = None,
    steps: Steps = None,
    count: Count = 100,
    work: Folder = WORK,
    resume: Resume = False,
    out: Out = ROOT,
    real: Real = None,
    reference: Reference = "IMAGENET1K_V1",
    variant: Variant = "v1.5",
    begin: Annotated[Path | None, typer.Option(help="Weights of an earlier teacher to train on from.")] = None,
) -> None:
    """Distil the embedded D²4FAD teacher from an ImageNet ResNet-50."""
    run = Run(seed, DISTILLED[preset].changed(images, steps), work, out, resume)
    large = _resnet50(reference, variant)
    source = f"--reference {Path(reference).name} --variant {variant}"
    console.print(make_distilled(run, large, source, begin, Measures(count, CARD_SEEDS, real, large)))


@app.command()
def student(
    seed: Seed = 0,
    preset: PresetName = Preset.CPU,
    images: Images = None,
    steps: Steps = None,
    count: Count = 12,
    work: Folder = WORK,
    resume: Resume = False,
    out: Out = ROOT,
) -> None:
    """Train the embedded D²4FAD student on formula-made families; do it again whenever the teacher changes."""
    run = Run(seed, STUDENT[preset].changed(images, steps), work, out, resume)
    console.print(make_student(run, count, CARD_SEEDS))


@app.command()
def clip(
    seed: Seed = 0,
    preset: PresetName = Preset.CPU,
    images: Images = None,
    steps: Steps = None,
    count: Count = 16,
    work: Folder = WORK,
    resume: Resume = False,
    out: Out = ROOT,
    begin: Annotated[Path | None, typer.Option(help="Folder of an earlier CLIP to train on from.")] = None,
) -> None:
    """Train the embedded CLIP on phantoms, captions and signs."""
    run = Run(seed, CLIP[preset].changed(images, steps), work, out, resume)
    console.print(make_clip(run, count, begin))


@app.command()
def figures(
    real: Real = None,
    reference: Rival = None,
    variant: Variant = "v1.5",
) -> None:
    """Take the figures of both cards again from the embedded weights; exit code 1 when one is off its card."""
    cards = {name: read_card(asset(f"{name}/card.md")) for name in ("teacher", "clip")}
    found = embedded_tables(cards, real, _resnet50(reference, variant) if reference else None)
    console.print_json(data={name: dict(tables) for name, tables in found.items()})
    off = deviations(cards, found, TOLERANCE)
    for where, (stated, figure) in off.items():
        console.print(f"{where}: the card says {stated:.3f}, found {figure:.3f}")
    raise typer.Exit(int(bool(off)))


@app.command()
def curves() -> None:
    """Print the learning curves of the cards."""
    print(learning_curves())


def _resnet50(weights: str, variant: str) -> Teacher:
    try:
        settings = TeacherSettings.model_validate({"name": "resnet50", "weights": weights, "variant": variant})
    except ValidationError as error:
        raise ConfigError(f"--variant {variant} is not known; choose v1.5 or v1") from error
    return build_teacher(settings, 0)


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        app()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
