"""Train and test images chosen anew: whole patients, every class in both, by a seed (ours)."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from fed_fsad.data.entries import SPLITS, Entry, Split
from fed_fsad.data.partition import NORMAL
from fed_fsad.seeds import derive


def group_of(entry: Entry) -> str:
    """What stays together: all images of a patient, or one file whose patient is unknown."""
    return f"patient {entry.patient}" if entry.patient else f"file {entry.name}"


def split_entries(
    entries: Sequence[Entry], test_share: float, seed: int, group: Callable[[Entry], str] = group_of
) -> list[Entry]:
    """The entries in their order, each in train or test; images of one `group` are never parted.

    The rarest classes are dealt first, each group to the split furthest behind its share of the group's rarest class
    (after Sechidis et al., 2011). The order of `entries` changes nothing.
    """
    groups: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[group(entry)].append(entry)
    classes = {key: _classes(members) for key, members in groups.items()}
    total = sum(classes.values(), Counter[str]())
    rarest = {key: min(own, key=lambda name: (total[name], name)) for key, own in classes.items()}
    order = sorted(groups, key=lambda key: (total[rarest[key]], rarest[key], derive(seed, "split", key)))
    chosen = _deal(order, classes, rarest, {"train": 1 - test_share, "test": test_share})
    return [dataclasses.replace(entry, split=chosen[group(entry)]) for entry in entries]


def _classes(entries: Sequence[Entry]) -> Counter[str]:
    return Counter(name for entry in entries for name in entry.categories or (NORMAL,))


def _deal(
    order: Sequence[str], classes: Mapping[str, Counter[str]], rarest: Mapping[str, str], share: Mapping[Split, float]
) -> dict[str, Split]:
    given: dict[Split, Counter[str]] = {split: Counter() for split in SPLITS}
    chosen: dict[str, Split] = {}
    for key in order:
        name = rarest[key]
        size = classes[key][name]
        behind = {s: (2 * given[s][name] + size, given[s].total()) for s in SPLITS}
        chosen[key] = min(SPLITS, key=lambda s: (behind[s][0] / share[s], behind[s][1] / share[s], SPLITS.index(s)))
        given[chosen[key]] += classes[key]
    return chosen
