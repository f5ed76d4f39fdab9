"""What a run guarantees to the people in its images and to its hospitals, read from what was said as it went."""

from collections.abc import Mapping, Sequence
from typing import Any

from fed_fsad.privacy.accounting import printed
from fed_fsad.privacy.ledger import Ledger

LEFT = ("ok", "rejected")
"""What the server says of a site whose update it got, whatever it then did with it."""
NOTHING_LEFT = "Nothing trained on this site's images left it in this run."
NONE = (
    "No guarantee: this site's updates left as they were trained. Its images and file names did not leave, but whoever "
    "sees an update, or the models made of it, may learn about single images."
)
TO_THE_SERVER = (
    "No guarantee against the server, which got this site's updates as they were trained; against everybody who sees "
    "the models only, the hospital-level guarantee of this run."
)
MASKED = (
    "No guarantee: the server saw this site's updates in sums with those of other hospitals only. Its images and file "
    "names did not leave, but whoever sees a sum, or the models made of it, may learn about single images."
)
SUMS_TO_THE_SERVER = (
    "No guarantee against the server, which saw this site's updates in sums with those of other hospitals only; "
    "against everybody who sees the models only, the hospital-level guarantee of this run."
)
SIDE_BY_SIDE = (
    "The guarantees of the sites and of the hospital level protect different things and stand side by side: their ε "
    "are never added."
)


def guarantees(sites: Sequence[str], events: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """A sentence or two per site: its last claim, or that there is none, and in which round its budget was spent; a
    site that never sent an update says so.

    events: the lines of the run's metrics.jsonl, in their order.
    """
    found = dict.fromkeys(sites, NOTHING_LEFT)
    plain, masked = (TO_THE_SERVER, SUMS_TO_THE_SERVER) if hospital_level(events) else (NONE, MASKED)
    for event in events:
        if event["kind"] == "site" and event["status"] in LEFT and event["site"] in found:
            found[event["site"]] = event.get("claim") or (masked if event.get("masked") else plain)
    spent = _spent(events)
    return {site: " ".join(filter(None, (said, spent.get(site)))) for site, said in found.items()}


def hospital_level(events: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The hospital-level account after its last charge, or None in a run without one."""
    return next((event for event in reversed(events) if event["kind"] == "hospital_privacy"), None)


def hospital_claim(ledger: Ledger, budget: float) -> str:
    """The hospital-level guarantee as it stands in the run's own ledger, with what it does not cover."""
    if ledger.insecure_releases:
        return (
            f"No guarantee: the noise of {ledger.insecure_releases} releases came from a seeded generator, "
            "which anybody with the seed can subtract."
        )
    return (
        f"Hospital-level differential privacy of the models of this run with ε = {printed(ledger.epsilon)} spent of "
        f"{budget:g} and δ = {ledger.delta:g}, over all rounds, methods and parts jointly, under removal of one "
        "hospital with everything it holds, every hospital in every round (no amplification by sampling of sites); the "
        "server is trusted: not covered are the updates and figures that it receives and logs, who took part when, "
        "other runs, and settings tuned on the hospitals' data."
    )


def _spent(events: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Of each site whose budget is spent, since when."""
    first: dict[str, int] = {}
    for event in events:
        if event["kind"] == "site" and event["status"] == "budget_spent":
            first.setdefault(event["site"], event["round"])
    return {
        site: f"Its budget did not cover round {round_} and is spent: from then on nothing left it."
        for site, round_ in first.items()
    }
