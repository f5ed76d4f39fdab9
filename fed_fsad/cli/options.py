"""Options that several commands share."""

from typing import Annotated, Literal

import typer

Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override any key: --set federation.rounds=3.")]
ResumeMode = Annotated[
    Literal["fresh", "auto", "require"],
    typer.Option(
        help="fresh: a new run. auto: continue the run in --out, bit for bit, if there is one. "
        "require: there must be one."
    ),
]
Trackers = Annotated[
    list[str] | None, typer.Option("--track", help="Copy figures to tensorboard or mlflow; may be given twice.")
]
