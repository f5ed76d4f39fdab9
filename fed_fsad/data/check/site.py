"""Findings within one data set: labels, files, sizes and windows."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

import numpy as np

from fed_fsad.data.check.finding import Finding, Severity, SiteLooks
from fed_fsad.data.check.look import Look
from fed_fsad.data.entries import SPLITS
from fed_fsad.data.partition import NORMAL

FEW = 10
"""Images of a class in a split below which figures about it decide nothing."""
FEWEST_NORMAL = 3
"""Normal train images below which D²4FAD cannot train."""
SMALL = 64
"""Pixels a side."""
LONG = 1.5
"""Longer side over shorter one above which a plain resize to a square distorts visibly."""
UNEVEN = 16
"""Ratio between the widest and the narrowest window of deep images above which they hardly are of one scanner."""


def site_findings(site: SiteLooks) -> Iterator[Finding]:
    """Everything about one data set but copies and patients."""
    yield Finding("note", "found", site.name, site.listed.found)
    yield from _labels(site)
    yield from _files(site)
    if site.good:
        yield from _shapes(site)
        yield from _windows(site)


def _classes(look: Look) -> list[tuple[str, str]]:
    """Split and class; a class may well be called "normal" and mean something else."""
    return [(look.entry.split, name) for name in look.categories or (NORMAL,)]


def _labels(site: SiteLooks) -> Iterator[Finding]:
    count = Counter(key for look in site.good for key in _classes(look))
    listed = {key for look in site.looks for key in _classes(look)}
    names = sorted({name for _, name in listed})
    if NORMAL not in names:
        what = f"no image is normal: the classes are {', '.join(names)}"
        yield Finding("error", "no-normal", site.name, what, "name the normal class: --normal CLASS")
    elif count["train", NORMAL] < FEWEST_NORMAL:
        what = f"too few normal train images to train on: {count['train', NORMAL]}"
        yield Finding("warning", "few-normal", site.name, what, "add normal images")
    for split in SPLITS:
        if split not in {which for which, _ in listed}:
            remedy = "fed-fsad data split makes one" if split == "test" else "put images into train"
            yield Finding("warning", f"no-{split}", site.name, f"there is no {split} image", remedy)
    if gone := tuple(f"{where} {name or 'normal'}" for where, name in sorted(listed) if not count[where, name]):
        what = f"classes without an image that can be read: {len(gone)}"
        yield Finding("error", "class-unreadable", site.name, what, "restore the files or remove the class", gone)
    if few := tuple(f"{n} {where} {name or 'normal'}" for (where, name), n in sorted(count.items()) if 0 < n < FEW):
        what = f"classes of fewer than {FEW} images in a split, about which figures decide nothing: {len(few)}"
        yield Finding("warning", "few", site.name, what, "add images or join classes", few)
    if only := tuple(name for name in names if name and ("test", name) in listed and ("train", name) not in listed):
        yield Finding(
            "note", "test-only", site.name, f"classes in test only, on which nobody trains: {len(only)}", "", only
        )
    if site.listed.absent:
        what = f"images of the label file that are not on this disk: {len(site.listed.absent)}"
        yield Finding("warning", "absent", site.name, what, "add them, or leave it so", site.listed.absent)


def _files(site: SiteLooks) -> Iterator[Finding]:
    grouped: defaultdict[tuple[Severity, str], list[str]] = defaultdict(list)
    for look in site.looks:
        if look.problem is not None:
            grouped[look.severity, look.problem].append(look.name)
    for (severity, problem), names in grouped.items():
        code = "unreadable" if severity == "warning" else "mask"
        what, _, remedy = problem.rpartition("; ")
        yield Finding(severity, code, site.name, f"{what or problem}: {len(names)}", remedy, tuple(names))
    kinds: tuple[tuple[str, str, str, Callable[[Look], bool]], ...] = (
        ("flat", "images that show one value only", "look at them", lambda look: look.limits[0] == look.limits[1]),
        (
            "empty-mask",
            "abnormal images whose mask marks nothing",
            "mark the pixels",
            lambda look: look.unmarked and bool(look.categories),
        ),
        (
            "header",
            "DICOM files with names, birth dates or private tags",
            "nothing of them is used or stored here; de-identify the files before you hand them on",
            lambda look: look.private,
        ),
    )
    for code, what, remedy, concerns in kinds:
        if names := [look.name for look in site.good if concerns(look)]:
            yield Finding("warning", code, site.name, f"{what}: {len(names)}", remedy, tuple(names))


def _shapes(site: SiteLooks) -> Iterator[Finding]:
    small, large = min(look.size for look in site.good), max(look.size for look in site.good)
    span = f"{small[0]} x {small[1]}" + (f" to {large[0]} x {large[1]}" if large != small else "")
    yield Finding("note", "sizes", site.name, f"images of {span} pixels")
    if tiny := tuple(look.name for look in site.good if min(look.size) < SMALL):
        what = f"images with a side of less than {SMALL} pixels: {len(tiny)}"
        yield Finding("warning", "small", site.name, what, "use the originals if they are larger", tiny)
    if long := tuple(look.name for look in site.good if max(look.size) > LONG * min(look.size)):
        what = f"images far from square: {len(long)}"
        yield Finding("note", "long", site.name, what, "reading: {fit: letterbox} keeps their proportions", long)


def _windows(site: SiteLooks) -> Iterator[Finding]:
    deep = [look for look in site.good if look.deep]
    if not deep:
        return
    low, high = min(look.limits[0] for look in deep), max(look.limits[1] for look in deep)
    what = f"images of more than 8 bits: {len(deep)}, shown between {low:g} and {high:g}"
    yield Finding("note", "windows", site.name, what)
    widths = np.array([look.limits[1] - look.limits[0] for look in deep])
    widest, narrowest = widths.max(), min(widths[widths > 0], default=0.0)
    if narrowest and widest > UNEVEN * narrowest:
        what = f"windows are between {narrowest:g} and {widest:g} wide, as of images in different units"
        narrow = tuple(look.name for look, width in zip(deep, widths, strict=True) if 0 < width < widest / UNEVEN)
        yield Finding("warning", "uneven-windows", site.name, what, "export all images in one way", narrow)
