"""What a check says: findings with a severity and a remedy, and sites as they were looked at."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from fed_fsad.data.adapters import Listing
from fed_fsad.data.check.look import Look

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
Item = TypeVar("Item")


@dataclass(frozen=True)
class Finding:
    """One thing found. site: the root it concerns. files: all names it concerns, "ROOT: NAME" over several sites."""

    severity: Severity
    code: str
    site: str
    message: str
    remedy: str = ""
    files: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """One line for a person: the message, two examples, what to do."""
        examples = f", e.g. {', '.join(self.files[:2])}" if self.files else ""
        return f"{self.severity:<7} {self.site}: {self.message}{examples}{self.remedy and f'; {self.remedy}'}"


@dataclass(frozen=True)
class Report:
    """What a check found, errors first. ok: nothing in it would stop a run."""

    sites: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """True without errors."""
        return all(finding.severity != "error" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"sites": list(self.sites), "ok": self.ok, "findings": [asdict(finding) for finding in self.findings]}


@dataclass(frozen=True)
class SiteLooks:
    """A data set with everything that was seen of its files."""

    name: str
    listed: Listing
    looks: tuple[Look, ...]

    @property
    def good(self) -> tuple[Look, ...]:
        """What can be used."""
        return tuple(look for look in self.looks if look.problem is None)


def same(items: Iterable[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    """Groups of two and more items with one key, in the order of their first member."""
    groups: defaultdict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return [group for group in groups.values() if len(group) > 1]
