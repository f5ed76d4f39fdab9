"""Images that show nearly one picture, so that a split can keep them on one side (ours)."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from fed_fsad.data.check.copies import near_pairs
from fed_fsad.data.check.look import look_at
from fed_fsad.data.entries import Entry
from fed_fsad.data.settings import FolderData
from fed_fsad.data.split import group_of

Pairs = Sequence[tuple[Entry, Entry]]


def alike(
    entries: Sequence[Entry], data: FolderData, progress: Callable[[str, int, int], None]
) -> tuple[Pairs, dict[str, list[Entry]]]:
    """Pairs of entries with an image that looks alike, and the entries that a run could not use, by reason."""
    looks = list(look_at(data, entries, partial(progress, f"decoding {data.root}")))
    good = [look for look in looks if look.problem is None]
    near = near_pairs([look.hash for look in good], partial(progress, "comparing"))
    pairs = {(good[i].entry, good[j].entry): None for i, j in near if good[i].entry != good[j].entry}
    useless: dict[str, list[Entry]] = {}
    for look in looks:
        if look.problem is not None:
            why = (
                "files that cannot be decoded" if look.severity == "warning" else "images with a mask that does not fit"
            )
            useless.setdefault(why, []).append(look.entry)
    return list(pairs), useless


def joined(pairs: Pairs) -> Callable[[Entry], str]:
    """`group_of`, with the groups of entries that look alike made one; the order of the pairs changes nothing."""
    above: dict[str, str] = {}

    def top(key: str) -> str:
        while key in above:
            key = above[key]
        return key

    for one, other in pairs:
        first, second = sorted((top(group_of(one)), top(group_of(other))))
        if first != second:
            above[second] = first
    return lambda entry: top(group_of(entry))


def like_test(pairs: Pairs) -> Iterable[Entry]:
    """Train entries that look like a test entry."""
    for pair in pairs:
        if {entry.split for entry in pair} == {"train", "test"}:
            yield next(entry for entry in pair if entry.split == "train")
