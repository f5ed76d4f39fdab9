"""The site's images, as `fed-fsad data check` sees them."""

from collections.abc import Callable
from functools import lru_cache

from clients.check.line import Line, fail, ok, warn
from clients.settings import SiteSettings
from fed_fsad.data.check import Finding, Report, check
from fed_fsad.data.settings import FolderData, PhantomRehearsal

LISTED = ("listing", "found", "absent")
READ = ("unreadable", "mask", "class-unreadable", "header", "flat", "empty-mask")
COUNTED = ("no-normal", "few-normal", "no-train", "few", "test-only")
SHAPED = ("sizes", "small", "long", "windows", "uneven-windows")
TWICE = ("copies", "copies-labels", "copies-splits", "alike")
APART = ("patients", "no-patients")
SHOWN = 3
"""Findings of one line that are spelled out."""


def findings(codes: tuple[str, ...], nothing: str) -> Callable[[SiteSettings], Line]:
    """A check that tells what `data check` found under these codes, or `nothing`."""

    def told(site: SiteSettings) -> Line:
        if isinstance(site.data, PhantomRehearsal):
            return ok("phantoms: a rehearsal, no patient data")
        own = [finding for finding in _report(site.data).findings if finding.code in codes]
        return _line(own, nothing)

    return told


@lru_cache(maxsize=2)
def _report(data: FolderData) -> Report:
    return check([data], lambda what, done, of: None)


def _line(found: list[Finding], nothing: str) -> Line:
    for severity, told in (("error", fail), ("warning", warn)):
        if own := [finding for finding in found if finding.severity == severity]:
            more = f"; and {len(own) - SHOWN} more" if len(own) > SHOWN else ""
            remedies = dict.fromkeys(finding.remedy for finding in own[:SHOWN] if finding.remedy)
            return told("; ".join(map(_text, own[:SHOWN])) + more, "; ".join(remedies))
    return ok("; ".join(map(_text, found)) or nothing)


def _text(finding: Finding) -> str:
    return finding.message + (f", e.g. {', '.join(finding.files[:SHOWN])}" if finding.files else "")
