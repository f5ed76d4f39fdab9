"""The manifest layout: a CSV table with the columns path, split, label and, if wanted, categories, patient, mask."""

import csv
import hashlib
import hmac
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from fed_fsad.data.entries import SPLITS, Entry, categories_of
from fed_fsad.data.images import denied
from fed_fsad.data.settings import FolderData
from fed_fsad.errors import DataError
from fed_fsad.names import suggestion

REQUIRED = ("path", "split", "label")
COLUMNS = (*REQUIRED, "categories", "patient", "mask")
SEPARATORS = ",;\t|"


def list_manifest(data: FolderData) -> list[Entry]:
    """The images a manifest names. Raises DataError naming the manifest and the line.

    `label` is one of the `normal` names or not; `categories`, separated by ";" or "|", names the anomalies and falls
    back on the label. Patient ids are replaced by a hash keyed with the manifest's own content: without the file
    nobody can find out an id by hashing guesses or match patients of two sites, with it the grouping stays stable.
    A line repeated word for word is returned twice; two lines that differ about one image are an error.
    """
    if data.manifest is None:
        raise ValueError("these settings name no manifest")
    path = data.root / data.manifest
    content = _read(path)
    key = hashlib.sha256(content).digest()
    seen: dict[str, tuple[int, Entry]] = {}
    entries = []
    for row in _rows(content, path):
        entry = _entry(row, data, key)
        line, first = seen.setdefault(entry.name, (row.line, entry))
        if first != entry:
            raise row.error(f"{entry.name} is listed differently in line {line}; remove one of the two lines")
        entries.append(entry)
    if not entries:
        raise DataError(f"{path} lists no image; add one line per image")
    return entries


@dataclass(frozen=True)
class _Row:
    file: Path
    line: int
    cells: dict[str, str]

    def error(self, message: str) -> DataError:
        return DataError(f"{self.file}, line {self.line}: {message}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except PermissionError as error:
        raise denied(path) from error
    except OSError as error:
        raise DataError(f"manifest {path} cannot be read ({error.strerror}); correct data.manifest") from error


def _rows(content: bytes, path: Path) -> Iterator[_Row]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from error
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        _check_header(header, path)
        for cells in reader:
            row = _Row(path, reader.line_num, dict(zip(header, map(str.strip, cells), strict=False)))
            if not any(row.cells.values()):
                continue
            if len(cells) != len(header):
                raise row.error(f"{len(cells)} cells where the header has {len(header)}; quote cells with separators")
            yield row
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: no valid CSV ({error}); mend its quotes") from error


def _check_header(header: list[str], path: Path) -> None:
    if len(header) < len(REQUIRED):
        raise DataError(f"{path}: the first line must name {', '.join(REQUIRED)}, separated by commas")
    for name in header:
        if name not in COLUMNS:
            raise DataError(f"{path}: column {name!r} is unknown; remove it, or {suggestion(name, COLUMNS)}")
    for name in REQUIRED:
        if name not in header:
            raise DataError(f"{path} has no column {name!r}; its first line must name {', '.join(REQUIRED)}")
    if len(set(header)) != len(header):
        raise DataError(f"{path} has a column twice; keep each name once in its first line")


def _entry(row: _Row, data: FolderData, key: bytes) -> Entry:
    split = next((split for split in SPLITS if split == row.cells["split"]), None)
    if split is None:
        raise row.error(f"split {row.cells['split']!r} is unknown; write train or test")
    name = _inside(row, "path", data.root)
    mask = data.root / _inside(row, "mask", data.root) if row.cells.get("mask") else None
    patient = row.cells.get("patient")
    hashed = hmac.new(key, patient.encode(), "sha256").hexdigest()[:16] if patient else None
    return Entry(name, data.root / name, split, _categories(row, data.normal), mask, hashed)


def _categories(row: _Row, normal: tuple[str, ...]) -> tuple[str, ...]:
    label = row.cells["label"]
    if not label:
        raise row.error("the label is empty; write a class name")
    named = sorted({name.strip() for name in re.split(r"[;|]", row.cells.get("categories", "")) if name.strip()})
    label_says = categories_of(label, normal)
    if (named and not label_says) or set(named) & set(normal):
        raise row.error("the image is called normal and abnormal at once; correct its label or its categories")
    return tuple(named) or label_says


def _inside(row: _Row, column: str, root: Path) -> str:
    """The cell as a path relative to the root. Raises DataError when it leads out of the root, by links too."""
    text = row.cells[column].replace("\\", "/")
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
