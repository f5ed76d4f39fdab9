"""The numbers behind a figure or a table, unrounded, as a CSV file inside a data: address."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

Value = float | int | str | None
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Sheet:
    """rows: as long as `columns`; None is an empty cell."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]

    @property
    def link(self) -> str:
        """The CSV as an address that a browser saves without asking anybody."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerows([map(_harmless, row) for row in (self.columns, *self.rows)])
        return "data:text/csv;charset=utf-8," + quote(buffer.getvalue())


def sheet(columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> Sheet:
    """A sheet of any sequences."""
    return Sheet(tuple(columns), tuple(map(tuple, rows)))


def _harmless(value: Value) -> Value:
    """Text that a spreadsheet would run as a formula is quoted: names in a run may come from anybody."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
