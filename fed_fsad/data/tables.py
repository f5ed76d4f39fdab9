"""CSV files as people and public data sets write them: four separators, a byte-order mark, quotes; errors by line."""

import csv
import hashlib
import hmac
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fed_fsad.data.readers.files import denied
from fed_fsad.errors import DataError
from fed_fsad.names import suggestion

SEPARATORS = ",;\t|"
MAX_BYTES = 1 << 28


@dataclass(frozen=True)
class Row:
    """One line of a table: column name to cell, blanks around both removed."""

    file: Path
    line: int
    cells: Mapping[str, str]

    def __getitem__(self, column: str) -> str:
        return self.cells[column]

    def error(self, message: str) -> DataError:
        """The error that names this file and line."""
        return DataError(f"{self.file}, line {self.line}: {message}")

    def choice(self, column: str, known: Mapping[str, str]) -> str:
        """What the cell stands for. Raises DataError with the nearest right name for a cell that is not `known`."""
        if self[column] not in known:
            raise self.error(f"{column} {self[column]!r} is unknown; {suggestion(self[column], known)}")
        return known[self[column]]


@dataclass(frozen=True)
class Table:
    """rows: in the file's order, empty lines left out. key: a hash of the content, for `pseudonym`."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    key: bytes


def pseudonym(key: bytes, patient: str) -> str:
    """A patient's id as a hash keyed with the table's own content.

    Without the file nobody can find out an id by hashing guesses or match patients of two sites; with it the grouping
    stays stable.
    """
    return hmac.new(key, patient.encode(), "sha256").hexdigest()[:16]


def read_table(path: Path, required: tuple[str, ...], remedy: str) -> Table:
    """A table whose header has at least the `required` columns, spelled as there; others are kept.

    Raises DataError naming file, line and remedy; `remedy` ends the sentence about a file that cannot be read.
    """
    text = read_text(path, remedy)
    separator = max(SEPARATORS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = _header(next(reader, []), required, path)
        rows = [_row(path, reader.line_num, header, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: no valid CSV ({error}); mend its quotes") from error
    return Table(path, header, tuple(rows), hashlib.sha256(text.encode()).digest())


def read_text(path: Path, remedy: str) -> str:
    """A text file's content without a byte-order mark. Raises DataError as read_table."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES >> 20} MiB, which is no list of images; {remedy}")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text; save it in UTF-8") from error
    except PermissionError as error:
        raise denied(path) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); {remedy}") from error


def _header(cells: list[str], required: tuple[str, ...], path: Path) -> tuple[str, ...]:
    """The column names; those that differ from a required one in case alone are taken for it."""
    proper = {name.lower(): name for name in required}
    header = tuple(proper.get(cell.strip().lower(), cell.strip()) for cell in cells)
    if len(header) < len(required):
        raise DataError(f"{path}: the first line must name {', '.join(required)}, separated by commas")
    for name in required:
        if name not in header:
            near = suggestion(name, [other for other in header if other and other not in required])
            hint = f"{near.removesuffix('?')} there? " if near.startswith("did") else ""
            raise DataError(f"{path} has no column {name!r}; {hint}its first line must name {', '.join(required)}")
    named = [name.lower() for name in header if name]
    if len(set(named)) != len(named):
        raise DataError(f"{path} has a column twice; keep each name once in its first line")
    return header


def _row(path: Path, line: int, header: tuple[str, ...], cells: list[str]) -> Row:
    row = Row(path, line, dict(zip(header, map(str.strip, cells), strict=False)))
    if len(cells) != len(header):
        raise row.error(f"{len(cells)} cells where the header has {len(header)}; quote cells with separators")
    return row
