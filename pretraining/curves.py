"""The learning curves of the cards, thinned out to what a page can show."""

from collections.abc import Iterator
from pathlib import Path

from fed_fsad.assets import asset

CARDS = ("teacher", "student", "clip")
HEADING = "## Learning curve, by step\n\n"
ROWS = 12
"""Most points of a curve: evenly spaced, the last one among them."""


def thinned(card: Path) -> Iterator[str]:
    """Lines of the card's curve as a Markdown table of at most ROWS points."""
    head, rule, *points = card.read_text().split(HEADING)[1].strip().splitlines()
    stride = -(-len(points) // ROWS)
    yield f"| step {head.removeprefix('|').lstrip()}"
    yield rule.replace(" ", "")
    yield from points[(len(points) - 1) % stride :: stride]


def curves() -> str:
    """All curves, as docs/weights.md shows them."""
    tables = ("\n".join(thinned(asset(f"{name}/card.md"))) for name in CARDS)
    return "\n\n".join(f"{name}:\n\n{table}" for name, table in zip(CARDS, tables, strict=True))
