"""Class names that look like one name misspelled (ours)."""

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import combinations
from pathlib import Path

from fed_fsad.errors import DataError

SHORTEST = 5
"""Letters below which names as near as DR and DRS are taken for different ones."""
MOST = 300
"""Names above which nobody typed them by hand; comparing each with each would take long."""


def check_spelling(categories: Iterable[str], normal: Collection[str], path: Path) -> None:
    """Raises DataError when two class names of a table differ as a slip of the pen does: see `alike`."""
    count = Counter(categories)
    names = sorted({*count, *normal})
    for one, other in combinations(names, 2) if len(names) <= MOST else ():
        if alike(one, other) and (one in count or other in count):
            wrong, right = sorted((one, other), key=lambda name: (name in normal, count[name], name))
            raise DataError(f"{path}: the class {wrong!r} looks misspelled; did you mean {right!r}?")


def alike(one: str, other: str) -> bool:
    """Whether two names differ in case, blanks, "_" or "-" alone, or by one letter too many or two letters swapped.

    Another letter or digit in one place (grade1, grade2; type a, type b) makes another name.
    """
    short, long = sorted((_plain(one), _plain(other)), key=len)
    if short == long:
        return one != other
    if len(short) < SHORTEST or any(map(str.isdigit, short + long)):
        return False
    if len(long) == len(short) + 1:
        return any(short == long[:i] + long[i + 1 :] for i in range(len(long)))
    differ = [i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b]
    if len(short) != len(long) or len(differ) != 2 or differ[1] != differ[0] + 1:
        return False
    return short[differ[0]] == long[differ[1]] and short[differ[1]] == long[differ[0]]


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter not in " _-")
