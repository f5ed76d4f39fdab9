"""The manifest layout: a CSV table with the columns path, split, label and, if wanted, categories, patient, mask,
part, site and others that the settings name."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath

from fed_fsad.data.entries import SPLITS, Entry, categories_of
from fed_fsad.data.settings import COLUMNS, SITE, FolderData
from fed_fsad.data.spelling import check_spelling
from fed_fsad.data.tables import Row, Table, pseudonym, read_table
from fed_fsad.durable import replace
from fed_fsad.errors import DataError
from fed_fsad.names import suggestion

REQUIRED = COLUMNS[:3]
DEFAULT = Path("manifest.csv")


def list_manifest(data: FolderData) -> list[Entry]:
    """The images a manifest names. Raises DataError naming the manifest and the line.

    `label` is one of the `normal` names or not; `categories`, separated by ";" or "|", names the anomalies and falls
    back on the label. Patient ids are replaced by `pseudonym`s. A line repeated word for word is returned twice; two
    lines that differ about one image are an error, and so are two names that look like one misspelled.
    """
    path = data.root / (data.manifest or DEFAULT)
    table = read_table(path, REQUIRED, "correct data.manifest")
    columns = _check_columns(table, data.columns)
    seen: dict[tuple[str, str | None], tuple[int, Entry]] = {}
    entries = []
    for row in table.rows:
        row = Row(row.file, row.line, dict(zip(columns, row.cells.values(), strict=True)))
        entry = _entry(row, data, table.key)
        line, first = seen.setdefault((entry.name, entry.part), (row.line, entry))
        if first != entry:
            raise row.error(f"{entry.name} is listed differently in line {line}; remove one of the two lines")
        entries.append(entry)
    if not entries:
        raise DataError(f"{path} lists no image; add one line per image")
    check_spelling([name for entry in entries for name in entry.categories], data.normal, path)
    return entries


def write_manifest(path: Path, entries: Sequence[Entry], root: Path, normal: str) -> None:
    """Write what `list_manifest` reads; patients stand in it as hashes, normal images under the class name `normal`.

    Raises DataError for a category whose name holds a separator.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    own = sorted({column for entry in entries for column, _ in entry.columns} - {SITE})
    table.writerow([*COLUMNS, *own])
    for entry in entries:
        if wrong := [name for name in entry.categories if re.search(r"[;|]", name)]:
            raise DataError(f"the class name {wrong[0]!r} holds a separator of manifests; rename it without ; and |")
        mask = entry.mask.relative_to(root).as_posix() if entry.mask else ""
        label = entry.categories[0] if entry.categories else normal
        several = ";".join(entry.categories) if len(entry.categories) > 1 else ""
        said = dict(entry.columns)
        known = [entry.name, entry.split, label, several, entry.patient or "", mask, entry.part or ""]
        table.writerow([*known, *(said.get(column, "") for column in (SITE, *own))])
    replace(path, text.getvalue().encode())


def _check_columns(table: Table, own: Sequence[str]) -> list[str]:
    columns = [name if name in own else name.lower() for name in table.columns]
    for name in columns:
        if name not in (*COLUMNS, *own):
            raise DataError(
                f"{table.path}: column {name!r} is unknown; remove it, list it under data.columns if it is your own, "
                f"or {suggestion(name, COLUMNS)}"
            )
    for name in own:
        if name not in columns:
            raise DataError(f"{table.path} has no column {name!r}, which data.columns lists; add it, or take it out")
    return columns


def _entry(row: Row, data: FolderData, key: bytes) -> Entry:
    split = next((split for split in SPLITS if split == row["split"]), None)
    if split is None:
        raise row.error(f"split {row['split']!r} is unknown; write train or test")
    name = _inside(row, "path", data.root)
    mask = data.root / _inside(row, "mask", data.root) if row.cells.get("mask") else None
    patient = row.cells.get("patient")
    hashed = pseudonym(key, patient) if patient else None
    part = row.cells.get("part") or None
    said = tuple((column, row.cells[column]) for column in (SITE, *data.columns) if row.cells.get(column))
    return Entry(name, data.root / name, split, _categories(row, data.normal), mask, hashed, part, said)


def _categories(row: Row, normal: tuple[str, ...]) -> tuple[str, ...]:
    label = row["label"]
    if not label:
        raise row.error("the label is empty; write a class name")
    named = sorted({name.strip() for name in re.split(r"[;|]", row.cells.get("categories", "")) if name.strip()})
    label_says = categories_of(label, normal)
    if (named and not label_says) or set(named) & set(normal):
        raise row.error("the image is called normal and abnormal at once; correct its label or its categories")
    return tuple(named) or label_says


def _inside(row: Row, column: str, root: Path) -> str:
    """The cell as a path relative to the root. Raises DataError when it leads out of the root, by links too."""
    text = row[column].replace("\\", "/")
    if not text:
        raise row.error(f"the {column} is empty; write a path relative to the data set's root")
    path = PurePosixPath(text)
    leaves = path.is_absolute() or PureWindowsPath(text).drive or ".." in path.parts
    try:
        target = (root / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a name no file can have, or links in a circle
        raise row.error(f"{column} {text!r} leads nowhere ({error}); correct it") from error
    if leaves or not target.is_relative_to(root.resolve()):
        raise row.error(f"{column} {text} leaves the data set's root; use a path relative to it, without ..")
    return path.as_posix()
