"""`data check`: what would stop a run, and what would make its figures mean less, before it starts (ours)."""

from collections.abc import Callable, Sequence

from fed_fsad.data.adapters import Listing, listing
from fed_fsad.data.check.copies import between_sites, copies_within, near_copies, patients_within
from fed_fsad.data.check.finding import SEVERITIES, Finding, Report, SiteLooks
from fed_fsad.data.check.look import Look, look_at
from fed_fsad.data.check.site import site_findings
from fed_fsad.data.settings import FolderData
from fed_fsad.errors import DataError

OnProgress = Callable[[str, int, int], None]
"""Called with (what is done, how many are done, of how many)."""


def check(sites: Sequence[FolderData], progress: OnProgress) -> Report:
    """Look at every file of one or several data sets; each is a site; what is wrong is a finding, no error."""
    findings: list[Finding] = []
    opened: list[SiteLooks] = []
    for data in sites:
        try:
            found = listing(data)
            opened.append(SiteLooks(str(data.root), found, _looks(data, found, progress)))
        except DataError as error:
            what, _, remedy = str(error).rpartition("; ")
            findings.append(Finding("error", "listing", str(data.root), what or str(error), remedy if what else ""))
    for site in opened:
        findings += [*site_findings(site), *copies_within(site), *patients_within(site)]
    findings += between_sites(opened)
    findings += near_copies(opened, lambda done, of: progress("comparing", done, of))
    ranked = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return Report(tuple(str(data.root) for data in sites), tuple(ranked))


def _looks(data: FolderData, found: Listing, progress: OnProgress) -> tuple[Look, ...]:
    return tuple(look_at(data, found.entries, lambda done, of: progress(f"reading {data.root}", done, of)))


__all__ = ["Finding", "OnProgress", "Report", "check"]
