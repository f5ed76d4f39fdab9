"""`fed-fsad signs`: look at sign lists, ask a language model for one, check what came back."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fed_fsad.errors import ConfigError

app = typer.Typer(no_args_is_help=True, help="Show sign lists, ask a language model for one, check a list.")

TaskOption = Annotated[str, typer.Option("--task", help="Organ and modality, as the images' task is called.")]
CategoriesOption = Annotated[str, typer.Option("--categories", help="Anomalies, with commas between them.")]
COLOURS = {"error": "bold red", "warning": "yellow", "note": "dim"}


@app.command("show")
def show(
    name: Annotated[
        str | None, typer.Argument(metavar="[SET]", help="A bundled list or a YAML file; none: all.")
    ] = None,
) -> None:
    """Print a sign list with shared signs marked by *, or the names of the bundled ones."""
    from fed_fsad.data.signs import bundled_signs, load_signs  # imported late: `--help` should not wait for pydantic

    console = Console(soft_wrap=True, highlight=False)
    if name is None:
        for bundled in bundled_signs():
            for task, signs in load_signs(bundled).tasks.items():
                console.print(f"[bold]{bundled}[/]  {escape(task)}: {escape(', '.join(signs.categories))}")
        return
    for task, signs in load_signs(name).tasks.items():
        console.print(f"[bold]{escape(task)}[/] ({escape(signs.modality)})")
        groups = {"normal": signs.normal, **signs.categories}
        every = [sign for group in groups.values() for sign in group]
        for category, group in groups.items():
            console.print(f"  {escape(category)}")
            for sign in group:
                console.print(f"    {'*' if every.count(sign) > 1 else ' '} {escape(sign)}")


@app.command("request")
def request(
    task: TaskOption,
    categories: CategoriesOption,
    modality: Annotated[
        str | None, typer.Option("--modality", help="How texts call an image; default: the task.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=4, max=10, help="Signs per category.")] = 8,
) -> None:
    """Print what to ask a language model for; save its answer and check it with `fed-fsad signs validate`."""
    from fed_fsad.data.sign_check import request as text  # imported late: `--help` should not wait for pydantic

    names = _split(categories)
    if not names:
        raise ConfigError("--categories names none; write them with commas between: --categories glioma,pituitary")
    typer.echo(text(task, modality or task.replace("_", " "), names, count))


@app.command("validate")
def validate(
    file: Annotated[Path, typer.Argument(help="The YAML file with the signs.")],
    task: Annotated[str | None, typer.Option("--task", help="The task it must describe.")] = None,
    categories: Annotated[str, typer.Option("--categories", help="The anomalies it must describe.")] = "",
    model: Annotated[
        str, typer.Option("--model", help="embedded, or an open_clip name: whose tokens count.")
    ] = "embedded",
    n_ctx: Annotated[int, typer.Option("--n-ctx", min=0, help="Context tokens learned before every sign.")] = 4,
) -> None:
    """Check a sign list line by line: form, duplicates, diagnoses, length, what is missing; note shared signs.

    Ends with exit code 1 when something must be mended.
    """
    from fed_fsad.data.sign_check import remarks  # imported late: `--help` should not wait for torch
    from fed_fsad.methods.sdmad.backbone import text_length

    try:
        content = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read as text; check the path and save it as UTF-8") from error
    length, limit = text_length(model)
    found = remarks(content, task, _split(categories), length, limit - n_ctx)
    console = Console(soft_wrap=True, highlight=False)
    for remark in found:
        console.print(
            f"[{COLOURS[remark.severity]}]{escape(f'{file}:{remark.line}: {remark.severity}: {remark.text}')}[/]"
        )
    counts = [sum(remark.severity == severity for remark in found) for severity in ("error", "warning")]
    console.print(f"{counts[0]} errors, {counts[1]} warnings")
    raise typer.Exit(1 if counts[0] else 0)


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",") if name.strip()]
