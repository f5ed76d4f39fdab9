"""`fed-fsad predict`: a trained run put to use on images of one's own."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    Task,
    encoded,
    kind_of,
    model_of,
    warn,
)
from fed_fsad.errors import ConfigError

if TYPE_CHECKING:
    from fed_fsad.inference.predict import Outcome

PARTIAL = 3
"""Exit code when some queries could not be read and the others were scored."""


def predict(
    run: Run,
    query: Annotated[Path, typer.Option("--query", help="Folder of the images to score, or one image.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to make: tables, pictures, a record.")],
    support: Annotated[Path | None, typer.Option("--support", help="As for fed-fsad bank make.")] = None,
    bank: Annotated[Path | None, typer.Option("--bank", help="A saved bank instead of --support.")] = None,
    method: MethodOption = None,
    round_: Round = None,
    specificity: Annotated[
        float, typer.Option("--specificity", min=0.5, max=0.999, help="Share of normal images to leave in peace.")
    ] = 0.95,
    shots: Shots = None,
    seed: Seed = 0,
    task: Task = None,
    normal: Normal = None,
    reading: ReadingText = None,
) -> None:
    """Score images with the model of a run and a few support images: scores, decisions, reasons, heatmaps.

    Ends with exit code 3 when some of the images could not be read; the others are scored.
    """
    from fed_fsad.inference.banks import load_bank  # imported late: `--help` should not wait for torch
    from fed_fsad.inference.images import find_queries
    from fed_fsad.inference.predict import Question, check_free
    from fed_fsad.inference.predict import predict as predicted

    check_free(out)
    model = model_of(run, method, round_)
    with bars() as progress:
        if support is not None and bank is None:
            kind = kind_of(model, task, normal, reading)
            named, supports = encoded(model, kind, support, shots, seed, progress)
        elif bank is not None and support is None:
            named, supports = load_bank(bank, model), []
            kind = kind_of(model, named.bank.task, normal, reading)
        else:
            raise ConfigError("give either --support with support images or --bank with a saved bank")
        queries, unreadable = find_queries(query, kind, progress)
        outcome = predicted(model, Question(named, supports, queries, unreadable, specificity), out, progress)
    _report(outcome, out)
    for one in unreadable:
        warn(f"{one.name} was not scored: {one.reason}")
    raise typer.Exit(PARTIAL if unreadable else 0)


def _report(outcome: "Outcome", out: Path) -> None:
    for text in outcome.warnings:
        warn(text)
    decisions = [verdict.decision for verdict in outcome.verdicts]
    typer.echo(f"{len(decisions)} images: {decisions.count('abnormal')} abnormal, {decisions.count('normal')} normal")
    typer.echo(f"threshold: {outcome.rule}")
    typer.echo(f"written: {out / 'predictions.csv'}")
