"""What an attempt leaves in metrics.jsonl: a line per site, one for the round, one per site's own evaluation."""

from collections.abc import Iterator
from typing import Any

from fed_fsad.messages import Reply
from fed_fsad.rundir import Event
from server.attempts import Attempt


def site_lines(tried: Attempt, round_: int) -> Iterator[Event]:
    """One line per site that was asked or whose late update came."""
    for site in tried.sites:
        status, reason = tried.faults.get(site, ("ok", ""))
        line: dict[str, Any] = {"kind": "site", "round": round_, "site": site, "status": status, "reason": reason}
        line |= {"bytes_up": tried.up.get(site, 0), "bytes_down": tried.down[site]}
        if tried.masks and site not in tried.watching:
            line["masked"] = True
        if site in tried.watching:
            line["role"] = "predict-only"
        if site in tried.late:
            line["trained_for"] = tried.late[site]
        if site in tried.heard:
            # A rejected update was paid for like any other: its ε counts, its figures do not.
            line |= _account(tried.heard[site]) | ({} if site in tried.faults else _figures(tried.heard[site]))
        yield line


def round_line(tried: Attempt, round_: int, attempt: int, needed: int, seconds: float) -> Event:
    """The attempt as a whole."""
    return {
        "kind": "round",
        "round": round_,
        "attempt": attempt,
        "seconds": round(seconds, 3),
        "bytes_up": sum(tried.up.values()),
        "bytes_down": sum(tried.down.values()),
        "replies": len(tried.valid),
        "complete": len(tried.valid) >= needed,
        "rejected": {site: reason for site, (_, reason) in sorted(tried.faults.items())},
    }


def evaluation_lines(reply: Reply, round_: int) -> Iterator[Event]:
    """A site's figures of the model after `round_` rounds, one line per method."""
    for method, own in sorted(reply.evaluation.items()):
        interval = [own["low"], own["high"]] if {"low", "high"} <= set(own) else None
        personal = {key: own[key] for key in ("personal", "personal_low", "personal_high") if key in own}
        yield {
            "kind": "site_evaluation",
            "round": round_,
            "site": reply.site,
            "method": method,
            "headline": own["headline"],
            "interval": interval,
            "shots": int(own["shots"]),
            "images": int(own["images"]),
            **personal,
        }


def _figures(reply: Reply) -> dict[str, Any]:
    blocks: dict[str, dict[str, float]] = {}
    for method in reply.tensors:
        figures = {name: value for name, value in reply.metrics.get(method, {}).items() if name != "examples"}
        blocks[method] = figures | ({"examples": reply.examples[method]} if method in reply.examples else {})
    # A site under privacy tells no seconds.
    return {"methods": blocks} | ({"seconds": round(reply.seconds, 3)} if reply.seconds else {})


def _account(reply: Reply) -> dict[str, Any]:
    return {"epsilon": reply.epsilon, "delta": reply.delta, "unit": reply.unit, "claim": reply.claim}
