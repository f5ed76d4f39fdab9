"""Findings about images and patients that are there twice: in one data set, and at several sites."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fed_fsad.data.check.finding import Finding, Severity, SiteLooks, same
from fed_fsad.data.check.look import Look
from fed_fsad.data.entries import SPLITS

NEAR = 12
"""Bits of 256 in which perceptual hashes of one picture may differ. Measured (ours): a picture and its copy at half the
size and JPEG quality 60 differ in 12 bits or fewer in 98 of 100 cases; of 400,000 pairs of chest X-rays and 128,000 of
fundus photographs none is that near."""
BLOCK = 2048
KEEP = "fed-fsad data split --keep-test leaves the train images out"


def copies_within(site: SiteLooks) -> Iterator[Finding]:
    """The same content listed more than once."""
    found: dict[str, list[str]] = {"copies-labels": [], "copies-splits": [], "copies": []}
    for group in same(site.good, lambda look: look.id):
        one_label = len({look.categories for look in group}) == 1
        one_split = len({look.entry.split for look in group}) == 1
        code = ("copies" if one_split else "copies-splits") if one_label else "copies-labels"
        found[code].append(" = ".join(look.name for look in group))
    texts: dict[str, tuple[Severity, str, str]] = {
        "copies-labels": ("error", "images under different labels", "decide on one, or fed-fsad data split leaves "
                          "them out"),
        "copies-splits": ("error", "images in train and in test", KEEP),
        "copies": ("warning", "images listed more than once, of which the first is used", "remove the copies"),
    }  # fmt: skip
    for code, names in found.items():
        severity, what, remedy = texts[code]
        if names:
            yield Finding(severity, code, site.name, f"{what}: {len(names)}", remedy, tuple(names))


def patients_within(site: SiteLooks) -> Iterator[Finding]:
    """Patients in train and in test."""
    known = [look for look in site.good if look.patient]
    leaks = []
    for group in same(known, lambda look: look.patient):
        first = {look.entry.split: look.name for look in reversed(group)}
        if len(first) > 1:
            leaks.append(" and ".join(first[split] for split in SPLITS))
    if leaks:
        yield Finding(
            "error", "patients", site.name, f"patients in train and in test: {len(leaks)}", KEEP, tuple(leaks)
        )
    if site.good and not known:
        what = "no patient is known, so images of one patient may lie in train and in test"
        yield Finding("note", "no-patients", site.name, what, "a manifest with a column patient keeps them together")


def between_sites(sites: Sequence[SiteLooks]) -> Iterator[Finding]:
    """The same content at several sites."""
    if len(sites) < 2:
        return
    names = ", ".join(site.name for site in sites)
    every = [(site.name, look) for site in sites for look in site.good]
    if copies := _shared(every, lambda look: look.id):
        what = f"images at several sites: {len(copies)}"
        yield Finding("error", "copies-sites", names, what, "let one site keep each", copies)
    if patients := _shared([pair for pair in every if pair[1].patient], lambda look: look.patient):
        what = f"patients with DICOM files at several sites: {len(patients)}"
        yield Finding("warning", "patients-sites", names, what, "let one site keep each, if it is one person", patients)
    what = "patients that a manifest or a label file names cannot be compared: each site hashes them with its own key"
    yield Finding("note", "patients-hashed", names, what)


def _shared(every: Sequence[tuple[str, Look]], key: Callable[[Look], str | None]) -> tuple[str, ...]:
    """One line for each group of looks with one key that do not all lie at one site."""
    groups = [group for group in same(every, lambda pair: key(pair[1])) if len({name for name, _ in group}) > 1]
    return tuple(" = ".join(f"{name}: {look.name}" for name, look in group) for group in groups)


def near_copies(sites: Sequence[SiteLooks], progress: Callable[[int, int], None]) -> Iterator[Finding]:
    """Images alike to the eye: scaled or recompressed copies, augmentations, neighbouring slices."""
    every = [(site.name, look) for site in sites for look in site.good]
    grouped: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for i, j in near_pairs([look.hash for _, look in every], progress):
        (site, one), (other_site, other) = every[i], every[j]
        if one.id == other.id or (site == other_site and one.entry.name == other.entry.name):
            continue
        if site != other_site:
            pair = f"{site}: {one.name} ~ {other_site}: {other.name}"
            grouped[f"{site}, {other_site}", "at different sites"].append(pair)
        else:
            where = "in one split" if one.entry.split == other.entry.split else "in train and test"
            grouped[site, where].append(f"{one.name} ~ {other.name}")
    for (names, where), pairs in grouped.items():
        severity: Severity = "note" if where == "in one split" else "warning"
        what = f"pairs of images {where} that look alike: {len(pairs)}"
        yield Finding(severity, "alike", names, what, "keep one of each if they are copies", tuple(pairs))


def near_pairs(hashes: Sequence[bytes], progress: Callable[[int, int], None]) -> Iterator[tuple[int, int]]:
    """Positions i < j of hashes of 32 bytes that differ in at most NEAR bits, compared block by block."""
    words: NDArray[np.uint64] = np.frombuffer(b"".join(hashes), dtype=np.uint64).reshape(len(hashes), 4)
    for start in range(0, len(words), BLOCK):
        block = words[start : start + BLOCK]
        for other in range(start, len(words), BLOCK):
            apart = np.zeros((len(block), len(words[other : other + BLOCK])), np.uint16)
            for k in range(4):
                apart += np.bitwise_count(block[:, None, k] ^ words[None, other : other + BLOCK, k])
            for i, j in np.argwhere(apart <= NEAR):
                if start + i < other + j:
                    yield int(start + i), int(other + j)
        progress(min(start + BLOCK, len(words)), len(words))
