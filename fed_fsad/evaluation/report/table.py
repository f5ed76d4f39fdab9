"""Tables of the report: what is shown is rounded, what the CSV link carries is not."""

from collections.abc import Sequence
from dataclasses import dataclass

from fed_fsad.evaluation.report.sheet import Sheet, Value, sheet


@dataclass(frozen=True)
class Cell:
    """One cell. raw: its value in the CSV, the text without one; note: small print under the text."""

    text: str
    raw: Value = None
    note: str = ""


@dataclass(frozen=True)
class Table:
    """rows: as long as `columns`; the first cell of a row is its heading. numeric: columns set as numbers."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: frozenset[int] = frozenset()

    @property
    def sheet(self) -> Sheet:
        """Its unrounded values."""
        return sheet(self.columns, [[cell.text if cell.raw is None else cell.raw for cell in row] for row in self.rows])


def table(
    name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], words: int = 1
) -> Table | None:
    """A table whose first `words` columns are words and whose other columns are numbers; None without rows."""
    if not rows:
        return None
    return Table(name, caption, tuple(columns), tuple(map(tuple, rows)), frozenset(range(words, len(columns))))
