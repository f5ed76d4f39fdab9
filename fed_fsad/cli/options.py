"""Options that several commands share."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fed_fsad.errors import ConfigError

if TYPE_CHECKING:
    from fed_fsad.data.settings import Reading

Overrides = Annotated[list[str] | None, typer.Option("--set", help="Override any key: --set federation.rounds=3.")]
Data = Annotated[Path | None, typer.Option(help="Folder of your images; short for --set data.root=DIR.")]
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


def with_data(overrides: list[str] | None, root: Path | None) -> list[str]:
    """What --set and --data say, as overrides."""
    # quoted, because a path may hold what YAML would read as something else
    folder = [f"data.root={json.dumps(str(root), ensure_ascii=False)}"] if root else []
    return [*(overrides or []), *folder]


def reading_of(text: str) -> "Reading":
    """The group `data.reading` written on the command line. Raises ConfigError when it is not one."""
    import yaml  # imported late: `--help` should not wait for pydantic
    from pydantic import ValidationError

    from fed_fsad.data.settings import Reading
    from fed_fsad.explain import explain

    try:
        return Reading.model_validate(yaml.safe_load(text))
    except yaml.YAMLError:
        raise ConfigError(f"--reading {text} is no valid YAML; write it like '{{slices: all}}'") from None
    except ValidationError as error:
        raise ConfigError(f"{explain(error, Reading, ('reading',))}.") from None
