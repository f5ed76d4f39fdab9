"""`fed-fsad data`: look at images, split them, show them, draw phantoms, before anything is trained."""

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from fed_fsad.cli.bars import bars
from fed_fsad.cli.options import reading_of
from fed_fsad.errors import ConfigError
from fed_fsad.names import suggestion

if TYPE_CHECKING:
    from fed_fsad.data.settings import FolderData

app = typer.Typer(no_args_is_help=True, help="Check, split and show images on disk; write phantoms.")

Root = Annotated[Path, typer.Argument(help="Folder of the images, e.g. a public data set as it was downloaded.")]
LayoutOption = Annotated[str, typer.Option("--layout", help="How the images lie; see fed-fsad data layouts.")]
ManifestOption = Annotated[Path | None, typer.Option("--manifest", help="CSV manifest, relative to the folder.")]
TaskOption = Annotated[str | None, typer.Option("--task", help="Organ and modality; default: the layout's own.")]
NormalOption = Annotated[list[str] | None, typer.Option("--normal", help="Class that means: no anomaly. Repeatable.")]
OwnOption = Annotated[
    list[str] | None, typer.Option("--own-column", help="Column of your own in the manifest: data.columns. Repeatable.")
]
ReadingOption = Annotated[
    str, typer.Option("--reading", help="The group data.reading as in a config, e.g. '{slices: all}'.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Another seed makes another choice.")]


@app.command("check")
def check(
    roots: Annotated[list[Path], typer.Argument(help="Folder of the images; several folders are several sites.")],
    layout: LayoutOption = "auto",
    manifest: ManifestOption = None,
    own_column: OwnOption = None,
    normal: NormalOption = None,
    reading: ReadingOption = "{}",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every file concerned.")] = False,
) -> None:
    """Find what would stop a run or spoil its figures: damaged files, copies, leaks, odd labels, sizes and headers.

    Ends with exit code 1 when something would stop a run.
    """
    from fed_fsad.data.check import check as check_sites  # imported late: `--help` should not wait for torch

    sites = [_folder(root, layout, manifest, own_column, None, normal, reading) for root in roots]
    with bars() as progress:
        report = check_sites(sites, progress)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), ensure_ascii=False, indent=1))
    else:
        colours = {"error": "bold red", "warning": "yellow", "note": "dim"}
        console = Console(soft_wrap=True, highlight=False)
        for finding in report.findings:
            console.print(f"[{colours[finding.severity]}]{escape(finding.line)}[/]")
        counts = [sum(finding.severity == severity for finding in report.findings) for severity in ("error", "warning")]
        console.print(f"{counts[0]} errors, {counts[1]} warnings")
    raise typer.Exit(0 if report.ok else 1)


@app.command("split")
def split(
    root: Root,
    out: Annotated[Path, typer.Option("--out", help="The manifest to write.")],
    layout: LayoutOption = "auto",
    manifest: ManifestOption = None,
    own_column: OwnOption = None,
    task: TaskOption = None,
    normal: NormalOption = None,
    reading: ReadingOption = "{}",
    seed: SeedOption = 0,
    test_share: Annotated[float, typer.Option("--test-share", min=0.01, max=0.99, help="Part for testing.")] = 0.3,
    keep_test: Annotated[
        bool, typer.Option("--keep-test", help="Keep the test part; clean train of its copies and patients.")
    ] = False,
    alike: Annotated[
        bool, typer.Option("--alike/--no-alike", help="Keep images that look alike on one side; decodes every image.")
    ] = True,
) -> None:
    """Write a manifest with a new split: whole patients, every class in both parts, no copies, no contradictions."""
    from fed_fsad.data.manifest import write_manifest  # imported late: `--help` should not wait for torch
    from fed_fsad.data.resplit import Rules, resplit

    _check_new(out)
    data = _folder(root, layout, manifest, own_column, task, normal, reading)
    with bars() as progress:
        done = resplit(data, Rules(test_share, seed, keep_test, alike), progress)
    write_manifest(out, done.entries, root, data.normal[0])
    console = Console(soft_wrap=True, highlight=False)
    for line in done.lines:
        console.print(escape(line))
    console.print("use it in a config:")
    console.print(escape(_yaml(data, out, done.task)), end="")


@app.command("preview")
def preview(
    root: Root,
    out: Annotated[Path, typer.Option("--out", help="The PNG to write.")],
    layout: LayoutOption = "auto",
    manifest: ManifestOption = None,
    own_column: OwnOption = None,
    normal: NormalOption = None,
    reading: ReadingOption = "{}",
    seed: SeedOption = 0,
    columns: Annotated[int, typer.Option("--columns", min=1, max=40, help="Images per class.")] = 8,
) -> None:
    """Draw a contact sheet: a row of images per class, as the methods see them, masks outlined in red."""
    from fed_fsad.data.scan import scan  # imported late: `--help` should not wait for torch
    from fed_fsad.data.sheet import contact_sheet
    from fed_fsad.durable import replace

    _check_new(out)
    with bars() as progress:
        found = scan(
            _folder(root, layout, manifest, own_column, None, normal, reading), partial(progress, f"reading {root}")
        )
        content = contact_sheet([*found.train, *found.test], columns, seed, partial(progress, "drawing"))
    replace(out, content)
    typer.echo(f"contact sheet: {out}")


@app.command("phantoms")
def phantoms(
    out: Annotated[Path, typer.Option("--out", help="Folder to make; one folder per organ inside.")],
    task: Annotated[list[str] | None, typer.Option("--task", help="Organ to draw; default: all. Repeatable.")] = None,
    normal: Annotated[int, typer.Option("--normal", min=0, help="Normal images per organ and split.")] = 48,
    abnormal: Annotated[int, typer.Option("--abnormal", min=0, help="Abnormal images per organ and split.")] = 48,
    several: Annotated[int, typer.Option("--several", min=1, help="Anomalies in one abnormal image.")] = 1,
    size: Annotated[int, typer.Option("--size", min=16, max=2048, help="Pixels a side.")] = 256,
    style: Annotated[int, typer.Option("--style", min=0, help="Scanner: one of the generator's styles.")] = 0,
    seed: SeedOption = 0,
) -> None:
    """Draw phantom images to disk as PNG, with masks, signs and a manifest; the same options give the same files."""
    from fed_fsad.data.phantoms import ORGANS  # imported late: `--help` should not wait for torch
    from fed_fsad.data.phantoms.disk import Order, write_phantoms

    for organ in task or list(ORGANS):
        order = Order(organ, normal, abnormal, size, style, several, seed)
        with bars() as progress:
            manifest = write_phantoms(out / organ, order, partial(progress, f"drawing {organ}"))
        typer.echo(f"{organ}: {2 * (normal + abnormal)} images, {manifest}")


@app.command("layouts")
def layouts() -> None:
    """List the layouts that are recognised: own folders, manifests, and public data sets as they are downloaded."""
    from fed_fsad.data.adapters import LAYOUTS  # imported late: `--help` should not wait for torch

    console = Console(soft_wrap=True, highlight=False)
    for layout in LAYOUTS.values():
        console.print(f"[bold]{layout.name}[/]: {escape(layout.title)}")
        console.print(f"    folder: {escape(layout.shape)}\n    source: {escape(layout.source)}")


def _folder(
    root: Path,
    layout: str,
    manifest: Path | None,
    columns: list[str] | None,
    task: str | None,
    normal: list[str] | None,
    reading: str,
) -> "FolderData":
    """The settings that the options mean. Raises ConfigError for a layout or a way of reading that does not exist."""
    from pydantic import ValidationError

    from fed_fsad.data.adapters import LAYOUTS
    from fed_fsad.data.settings import FolderData
    from fed_fsad.explain import explain

    if layout not in {"auto", *LAYOUTS}:
        raise ConfigError(f"layout {layout!r} does not exist; {suggestion(layout, ['auto', *LAYOUTS])}")
    raw = {
        "kind": "folder",
        "root": root,
        "layout": layout,
        "manifest": manifest,
        "task": task,
        "columns": columns or (),
    }
    try:
        group = {"reading": reading_of(reading), **({"normal": normal} if normal else {})}
        return FolderData.model_validate({**raw, **group})
    except ValidationError as error:
        raise ConfigError(f"{explain(error, FolderData)}.") from None


def _check_new(out: Path) -> None:
    """Raises ConfigError for a file that is there already: it may be a manifest or an image of the user's own."""
    if out.exists():
        raise ConfigError(f"{out} exists already; choose another --out or remove it")


def _yaml(data: "FolderData", manifest: Path, task: str) -> str:
    """The block of a config that reads the manifest."""
    import yaml

    chosen = data.reading.model_dump(exclude_defaults=True)
    block = {
        "kind": "folder",
        "root": str(data.root),
        "manifest": str(manifest.resolve()),
        **({"columns": list(data.columns)} if data.columns else {}),
        "task": task,
        "normal": [data.normal[0]],
        **({"reading": chosen} if chosen else {}),
    }
    return yaml.safe_dump({"data": block}, sort_keys=False, allow_unicode=True)
