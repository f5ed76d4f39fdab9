"""summary.json: the whole run in one object, always computed anew from what metrics.jsonl holds."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import fmean
from typing import Any

from fed_fsad.errors import UserError
from fed_fsad.evaluation.report import write_report
from fed_fsad.privacy.guarantees import guarantees, hospital_level
from fed_fsad.rundir import RunDir

Line = Mapping[str, Any]


@contextmanager
def recorded(run: RunDir) -> Iterator[None]:
    """Work on a run that ends in its summary and report, whether the work succeeds or raises; an interrupted run has
    neither, and a completed one stays completed when work on it fails.
    """
    try:
        yield
    except Exception as error:
        if run.status == "completed":
            raise
        mended = isinstance(error, UserError)
        text = str(error) if mended else f"an unexpected {type(error).__name__}: {error}; please report it"
        run.write_summary(summarise(run, "failed", text))
        write_report(run.path)
        raise
    run.write_summary(summarise(run, "completed"))
    write_report(run.path)


def summarise(run: RunDir, status: str, error: str | None = None) -> dict[str, Any]:
    """Everything a script wants to know of a run, JSON-able; figures that do not exist are None.

    A round that was repeated (after a failed try or a restart) counts with its last lines; rounds counts those that
    were aggregated. A site's faults and bytes count every try. What a site has spent of its privacy budget is the last
    it told of, whatever became of its update.
    """
    config, events = run.config(), run.events()
    lines = _latest(events)
    latest, every = _by_site(lines), _by_site(events)
    rounds = [line for line in lines if line["kind"] == "round"]
    said = guarantees([hospital.name for hospital in config.hospitals], events)
    seconds = sum(line["seconds"] for line in rounds)
    return {
        "status": status,
        "error": error,
        "name": config.name,
        "seed": config.seed,
        "engine": config.engine,
        "rounds": max((line["round"] for line in rounds if line["complete"]), default=0),
        "seconds": {"total": seconds, "per_round": seconds / len(rounds) if rounds else None},
        "bytes": {"up": sum(line["bytes_up"] for line in rounds), "down": sum(line["bytes_down"] for line in rounds)},
        "hospital_privacy": _hospital_level(events),
        "insecure_noise": config.privacy.insecure_noise_seed is not None,
        "skipped_images": [image for line in lines if line["kind"] == "skipped" for image in line["images"]],
        "warnings": list(dict.fromkeys(line["text"] for line in events if line["kind"] == "warning")),
        "methods": {name: _method(name, lines) for name in config.methods},
        "sites": {
            hospital.name: _site(latest[hospital.name], every[hospital.name]) | {"guarantee": said[hospital.name]}
            for hospital in config.hospitals
        },
    }


def _latest(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line per thing: of lines about the same round, site, method, arm and name, the last one."""
    keys = ("kind", "round", "site", "method", "arm", "name")
    return list({tuple(event.get(key) for key in keys): event for event in events}.values())


def _by_site(events: list[dict[str, Any]]) -> defaultdict[str | None, list[dict[str, Any]]]:
    """The lines about each site, sorted out in one pass, however many sites there are."""
    found: defaultdict[str | None, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        found[event.get("site")].append(event)
    return found


def _hospital_level(events: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The server's own privacy account after its last charge, or None in a run without one."""
    last = hospital_level(events)
    return None if last is None else {key: value for key, value in last.items() if key != "kind"}


def _method(name: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
    own = [line for line in lines if line.get("method") == name]
    curve = sorted((line for line in own if line["kind"] == "evaluation"), key=lambda line: int(line["round"]))
    if not curve:
        return {}
    last, first = curve[-1], curve[0]
    arms = {"federated": last["headline"]}
    for arm in ("pooled", "local"):
        found = [line["headline"] for line in own if line["kind"] == "arm" and line["arm"] == arm]
        known = [value for value in found if value is not None]
        if known:
            arms[arm] = fmean(known)
    if first["round"] == 0:
        arms["untrained"] = first["headline"]
    return {
        "image_auroc": last["image_auroc"],
        "image_auroc_sd": last["image_auroc_sd"],
        "headline": last["headline"],
        "headline_name": last["headline_name"],
        "interval": last["interval"],
        "average_precision": last["average_precision"],
        "pixel_auroc": last["pixel_auroc"],
        "pixel_aupro": last["pixel_aupro"],
        "pixel_dice": last.get("pixel_dice"),
        "sensitivity_95": last.get("sensitivity_95"),
        "extra": last["extra"],
        "arms": arms,
        "baselines": {line["name"]: line["headline"] for line in own if line["kind"] == "baseline"},
        "each": _each(curve, own),
        "left_out": last["left_out"],
    }


def _each(curve: list[dict[str, Any]], own: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Image AUROC by shots or protocol, of every arm and baseline by its name; local is the mean of the sites."""
    found = {"federated": [curve[-1]], "untrained": [line for line in curve[:1] if line["round"] == 0]}
    for line in own:
        if line["kind"] in ("arm", "baseline"):
            found.setdefault(line["arm"] if line["kind"] == "arm" else line["name"], []).append(line)
    figures: dict[str, dict[str, float | None]] = {}
    for label, lines in found.items():
        for key in curve[-1]["image_auroc"]:
            known = [line["image_auroc"][key] for line in lines if line["image_auroc"].get(key) is not None]
            figures.setdefault(label, {})[key] = fmean(known) if known else None
    return figures


def _site(lines: list[dict[str, Any]], mine: list[dict[str, Any]]) -> dict[str, Any]:
    """lines: the last ones about this site. mine: all of them."""
    own = sorted((line for line in lines if line["kind"] == "site"), key=lambda x: int(x["round"]))
    good = [line for line in own if line["status"] == "ok"]
    last = good[-1] if good else {}
    examples = [block["examples"] for block in last.get("methods", {}).values() if "examples" in block]
    every = [event for event in mine if event["kind"] == "site"]
    told = [event for event in mine if event.get("epsilon") is not None]
    account = told[-1] if told else {}
    return {
        "rounds": len(good),
        "failures": len([line for line in own if line["status"] not in ("ok", "budget_spent")]),
        "faults": dict(sorted(Counter(line["status"] for line in every if line["status"] != "ok").items())),
        "suspended": next((event["reason"] for event in mine if event["kind"] == "suspended"), None),
        "bytes": {way: sum(line.get(f"bytes_{way}", 0) for line in every) for way in ("up", "down")},
        "examples": max(examples) if examples else None,
        **{key: account.get(key) for key in ("epsilon", "delta", "unit", "claim")},
        "local": {line["method"]: line["headline"] for line in lines if line["kind"] == "arm"},
        "evaluation": _own_evaluation(mine),
    }


def _own_evaluation(mine: list[dict[str, Any]]) -> dict[str, Any]:
    """By method: what a site said of the latest model that it scored on its own images."""
    keys = ("round", "headline", "interval", "shots", "images", "personal", "personal_low", "personal_high")
    told = sorted(
        (event for event in mine if event["kind"] == "site_evaluation"), key=lambda event: int(event["round"])
    )
    return {event["method"]: {key: event[key] for key in keys if key in event} for event in told}
