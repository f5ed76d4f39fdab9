"""`data split`: a clean manifest of a data set: whole patients and look-alikes in one split, no contradictions."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from fed_fsad.data.adapters import listing
from fed_fsad.data.alike import Pairs, alike, joined, like_test
from fed_fsad.data.entries import SPLITS, Entry
from fed_fsad.data.parallel import ordered
from fed_fsad.data.readers import open_file
from fed_fsad.data.readers.picture import Undecodable
from fed_fsad.data.settings import FolderData, Reading
from fed_fsad.data.split import split_entries
from fed_fsad.data.tables import pseudonym
from fed_fsad.errors import DataError

LeftOut = defaultdict[str, list[str]]
"""Reason to names."""


@dataclass(frozen=True)
class Resplit:
    """found: what there was. task: the data set's. entries: what the manifest lists. left_out: reason to names."""

    found: str
    task: str
    entries: tuple[Entry, ...]
    left_out: dict[str, tuple[str, ...]]

    @property
    def lines(self) -> list[str]:
        """What was done, for a person."""
        lines = [f"found: {self.found}"]
        for split in SPLITS:
            own = [entry for entry in self.entries if entry.split == split]
            classes = Counter(name for entry in own for name in entry.categories or ("normal",))
            named = ", ".join(f"{count} {name}" for name, count in sorted(classes.items()))
            lines.append(f"{split}: {len(own)} images ({named or 'none'})")
        return lines + [f"left out, {why}: {len(names)}, e.g. {names[0]}" for why, names in self.left_out.items()]


@dataclass(frozen=True)
class Rules:
    """How to split. test_share, seed: of a new split. keep_test: keep the set's own test part and clean train.

    alike: images that look alike count as copies of one another that stay on one side; every image is decoded then.
    """

    test_share: float = 0.3
    seed: int = 0
    keep_test: bool = False
    alike: bool = True


def resplit(data: FolderData, rules: Rules, progress: Callable[[str, int, int], None]) -> Resplit:
    """Deal a data set's images anew, or keep its own test part and clean its train part.

    Left out: further copies of a file, all copies of a file that lies under different labels, files that cannot be
    opened; with `keep_test`, train images that copy or look like a test image or are of a test patient. Raises
    DataError for a data set that cannot be listed, or when nothing remains for a split.
    """
    found = listing(data)
    entries = sorted(found.entries, key=lambda entry: (entry.name, entry.part or ""))
    left_out: LeftOut = defaultdict(list)
    read = _read(entries, data, partial(progress, f"reading {data.root}"))
    kept = list(_without_copies(read, rules.keep_test, left_out))
    pairs, useless = alike(kept, data, progress) if rules.alike else ([], {})
    for why, own in useless.items():
        kept = _without(kept, own, why, left_out)
    kept = _apart(kept, pairs, left_out) if rules.keep_test else _dealt(kept, pairs, rules)
    for split in SPLITS:
        if not any(entry.split == split for entry in kept):
            raise DataError(f"{data.root}: no image would be left for {split}; add images or patients")
    return Resplit(
        found.found, found.task, tuple(kept), {why: tuple(names) for why, names in sorted(left_out.items()) if names}
    )


def _dealt(entries: Sequence[Entry], pairs: Pairs, rules: Rules) -> list[Entry]:
    return split_entries(entries, rules.test_share, rules.seed, joined(pairs))


def _read(
    entries: Sequence[Entry], data: FolderData, progress: Callable[[int, int], None]
) -> list[tuple[Entry, str | None]]:
    """The entries with a hash of their file, None where it cannot be read; patients of DICOM headers added."""
    paths = sorted({entry.path for entry in entries})
    read: dict[Path, tuple[str | None, str | None]] = {}
    for path, found in zip(paths, ordered(partial(_open, reading=data.reading), paths, heavy=False), strict=True):
        read[path] = found
        progress(len(read), len(paths))
    key = hashlib.sha256("".join(sorted(digest or "" for digest, _ in read.values())).encode()).digest()
    known = {path: pseudonym(key, patient) for path, (_, patient) in read.items() if patient}
    return [(replace(entry, patient=entry.patient or known.get(entry.path)), read[entry.path][0]) for entry in entries]


def _open(path: Path, reading: Reading) -> tuple[str | None, str | None]:
    try:
        opened = open_file(path, reading)
        return opened.digest(), opened.patient
    except Undecodable:
        return None, None


def _without_copies(entries: Iterable[tuple[Entry, str | None]], keep_test: bool, left_out: LeftOut) -> Iterable[Entry]:
    groups: defaultdict[tuple[str | None, str | None], list[Entry]] = defaultdict(list)
    for entry, digest in entries:
        groups[digest, entry.part].append(entry)
    for (digest, _), group in groups.items():
        if digest is None:
            left_out["files that cannot be read"] += [entry.name for entry in group]
        elif len({entry.categories for entry in group}) > 1:
            left_out["files that lie under different labels"] += [entry.name for entry in group]
        else:
            first = next((entry for entry in group if keep_test and entry.split == "test"), group[0])
            left_out["further copies of a file"] += [entry.name for entry in group if entry is not first]
            yield replace(first, patient=_patient(group))


def _patient(group: Sequence[Entry]) -> str | None:
    return next((entry.patient for entry in group if entry.patient), None)


def _apart(entries: Sequence[Entry], pairs: Pairs, left_out: LeftOut) -> list[Entry]:
    tested = {entry.patient for entry in entries if entry.split == "test"} - {None}
    same_patient = [entry for entry in entries if entry.split == "train" and entry.patient in tested]
    rest = _without(entries, same_patient, "train images of a test patient", left_out)
    return _without(rest, like_test(pairs), "train images that look like a test image", left_out)


def _without(entries: Sequence[Entry], unwanted: Iterable[Entry], why: str, left_out: LeftOut) -> list[Entry]:
    gone = set(unwanted)
    left_out[why] += [entry.name for entry in entries if entry in gone]
    return [entry for entry in entries if entry not in gone]
