"""What a run guarantees to the people in its images, read from what its sites said of themselves."""

from collections.abc import Mapping, Sequence
from typing import Any

LEFT = ("ok", "rejected")
"""What the server says of a site whose update it got, whatever it then did with it."""
NOTHING_LEFT = "Nothing trained on this site's images left it in this run."
NONE = (
    "No guarantee: this site's updates left as they were trained. Its images and file names did not leave, but whoever "
    "sees an update, or the models made of it, may learn about single images."
)


def guarantees(sites: Sequence[str], events: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A sentence per site: its last claim, or that there is none; a site that never sent an update says so.

    events: the lines of the run's metrics.jsonl, in their order.
    """
    found = dict.fromkeys(sites, NOTHING_LEFT)
    for event in events:
        if event["kind"] == "site" and event["status"] in LEFT and event["site"] in found:
            found[event["site"]] = event.get("claim") or NONE
    return found
