"""Helping a user who mistyped a name."""

from collections.abc import Iterable
from difflib import get_close_matches


def suggestion(word: str, known: Iterable[str]) -> str:
    """How to end an error about `word`: the nearest right name, or all of them."""
    names = list(known)
    near = get_close_matches(word, names, 1)
    return f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(sorted(names))}"
