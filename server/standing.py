"""How each site stands in a run: whose budget is spent, whose updates were bad again and again."""

from collections.abc import Iterable, Mapping
from typing import Any

from fed_fsad.errors import CheckpointError
from fed_fsad.rundir import Event


class Standing:
    """Who is not asked any more, and why.

    Only updates that were rejected count as bad. An `ok` one starts the count anew; silence, errors and refusals
    are failures of another kind and leave it as it is.
    """

    def __init__(self, suspend_after: int | None, events: Iterable[Event]) -> None:
        """events: what the run holds already; a budget that was spent stays spent."""
        self._limit = suspend_after
        self._spent = {str(event["site"]) for event in events if event.get("status") == "budget_spent"}
        self._strikes: dict[str, int] = {}
        self._suspended: dict[str, str] = {}

    def asks(self, site: str) -> bool:
        """Whether it is still asked."""
        return site not in self._suspended and site not in self._spent

    @property
    def out(self) -> dict[str, str]:
        """Reason by site of all that are not asked any more."""
        return {**self._suspended, **dict.fromkeys(self._spent, "its privacy budget is spent")}

    @property
    def suspended(self) -> dict[str, str]:
        """Reason by site of the suspended ones."""
        return dict(self._suspended)

    def note(self, site: str, status: str, reason: str) -> bool:
        """Take in what became of a site's answer; True when it is suspended for it."""
        if status == "budget_spent":
            self._spent.add(site)
        elif status == "ok":
            self._strikes.pop(site, None)
        elif status == "rejected":
            self._strikes[site] = self._strikes.get(site, 0) + 1
            if self._limit is not None and self._strikes[site] >= self._limit:
                self._suspended[site] = (
                    f"suspended for the rest of the run after {self._strikes[site]} rejected updates in a row, "
                    f"the last: {reason}"
                )
                return True
        return False

    def state(self) -> dict[str, Any]:
        """Counts and suspensions for a checkpoint, JSON-able."""
        return {"strikes": dict(sorted(self._strikes.items())), "suspended": dict(sorted(self._suspended.items()))}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what `state()` gave; an empty state is that of a run without bad updates. Raises CheckpointError."""
        try:
            self._strikes = {str(site): int(count) for site, count in state.get("strikes", {}).items()}
            self._suspended = {str(site): str(reason) for site, reason in state.get("suspended", {}).items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(
                "latest.json: the sites' standing cannot be read; restore the file from a copy"
            ) from error
