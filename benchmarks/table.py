"""Lines of the tables that benchmarks print."""

from collections.abc import Sequence

WIDTH = 56


def heading(columns: Sequence[str]) -> str:
    """The first line."""
    return " " * WIDTH + "".join(f"{column:>12}" for column in columns)


def row(label: str, values: Sequence[float]) -> str:
    """One line: a label and its figures."""
    return f"{label:<{WIDTH}}" + "".join(f"{value:>12.3f}" for value in values)
