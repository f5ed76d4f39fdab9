"""Everything the template needs, made from a loaded run."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fed_fsad.evaluation.report import charts, tables
from fed_fsad.evaluation.report.load import Run
from fed_fsad.evaluation.report.records import GalleryItem, Sign
from fed_fsad.evaluation.report.results import results, span
from fed_fsad.evaluation.report.svg import Chart
from fed_fsad.evaluation.report.words import amount, data_size, duration, method_title, plain, score

_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """One test image with its mask and its map, as data: addresses; None where a picture is missing."""

    item: GalleryItem
    image: str | None
    mask: str | None
    map: str | None

    @property
    def truth(self) -> str:
        """What the image shows."""
        return ", ".join(map(plain, self.item.categories)) or ("abnormal" if self.item.label else "normal")

    @property
    def tags(self) -> tuple[str, ...]:
        """Words that `truth` does not say already."""
        label = "abnormal" if self.item.label else "normal"
        return tuple(dict.fromkeys(x for x in (label, plain(self.item.kind)) if x not in ("", self.truth)))

    @property
    def score(self) -> str:
        """Its image score; scores of a method have no unit, so four digits."""
        return f"{self.item.score:.4g}"


@dataclass(frozen=True)
class Gallery:
    """One method's pictures."""

    title: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class SignList:
    """The signs of one category, kept ones first."""

    method: str
    task: str
    category: str
    signs: tuple[Sign, ...]


def context(run: Run) -> dict[str, Any]:
    """The template's variables."""
    every = results(run)
    return {
        "run": run,
        "facts": _facts(run),
        "results": every,
        "forests": _drawn([charts.forest(result, f"forest-{i}", span(every)) for i, result in enumerate(every)]),
        "closing": tables.closing(every),
        "figures": tables.figures(run),
        "notes": _notes(run),
        "curves": _curves(run),
        "detection": _detection(run),
        "galleries": [Gallery(method_title(m), pictures) for m in run.methods if (pictures := _pictures(run, m))],
        "signs": _signs(run),
        "sites": tables.sites(run),
        "claims": _claims(run),
        "took_part": _drawn([charts.attendance(run, "attendance"), charts.privacy(run, "privacy")]),
        "failures": tables.failures(run),
        "rounds": tables.rounds(run),
        "traffic": charts.traffic(run, "traffic"),
        "skipped": tables.skipped(run),
        "warnings": _warnings(run),
        "environment": run.environment.facts(),
        "score": score,
        "plain": plain,
    }


def _drawn(found: Sequence[Chart | None]) -> list[Chart]:
    return [chart for chart in found if chart is not None]


def _facts(run: Run) -> list[tuple[str, str]]:
    """The header's figures."""
    done = run.rounds[-1].round if run.rounds else 0
    done = run.summary.rounds if run.summary and run.summary.rounds is not None else done
    planned = run.planned_rounds
    seconds = run.summary.seconds.total if run.summary else sum(line.seconds for line in run.rounds)
    total = run.summary.bytes if run.summary else None
    up = total.up if total else sum(line.bytes_up for line in run.rounds)
    down = total.down if total else sum(line.bytes_down for line in run.rounds)
    seed = run.summary.seed if run.summary and run.summary.seed is not None else run.config.get("seed")
    return [
        ("rounds", f"{done} of {planned}" if planned and planned != done else str(done)),
        ("sites", str(len(run.sites))),
        ("time", duration(seconds)),
        ("to the sites", data_size(down)),
        ("to the server", data_size(up)),
        ("seed", "–" if seed is None else str(seed)),
    ]


def _curves(run: Run) -> list[Chart]:
    drawn = []
    for method in run.methods:
        title = method_title(method)
        drawn += [charts.detection(run, method, title, f"detection-{_number(run, method)}")]
        drawn += [charts.losses(run, method, title, f"losses-{_number(run, method)}")]
    return _drawn(drawn)


def _number(run: Run, method: str) -> int:
    """A number for a method: names come from folders and may hold anything, ids may not."""
    return run.methods.index(method)


def _detection(run: Run) -> list[Chart]:
    drawn = []
    for method, details in run.details.items():
        title, number = method_title(method), _number(run, method)
        drawn += [charts.roc(details.roc, title, f"roc-{number}")]
        tasks = sorted({scored.task for scored in details.scores})
        drawn += [charts.histogram(details, task, title, f"scores-{number}-{i}") for i, task in enumerate(tasks)]
    return _drawn(drawn)


def _pictures(run: Run, method: str) -> tuple[Picture, ...]:
    folder = run.path / "evaluation" / method
    items = run.details[method].gallery if method in run.details else ()
    return tuple(Picture(x, *(_embedded(folder, path) for path in (x.image, x.mask, x.map))) for x in items)


def _embedded(folder: Path, name: str | None) -> str | None:
    """A PNG of the gallery as a data: address; None without it, and for a path that leaves the folder."""
    if name is None:
        return None
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        return None
    content = path.read_bytes()
    return "data:image/png;base64," + base64.b64encode(content).decode() if content.startswith(_PNG) else None


def _signs(run: Run) -> list[SignList]:
    return [
        SignList(method_title(method), plain(task), plain(category), tuple(sorted(signs, key=lambda x: not x.kept)))
        for method, details in run.details.items()
        for task, categories in details.signs.items()
        for category, signs in categories.items()
    ]


def _notes(run: Run) -> list[str]:
    """What each method's summary adds to its figures."""
    notes = []
    for method, found in sorted(run.summary.methods.items()) if run.summary else ():
        if found.left_out:
            left = amount(found.left_out, "category", "categories")
            notes.append(f"{method_title(method)}: {left} without positives or negatives left out of the macro means.")
        notes += [f"{method_title(method)}: {note}" for note in found.notes]
    return notes


def _claims(run: Run) -> dict[str, str]:
    """What each private site promises, in its own words: the latest."""
    claims = {line.site: line.claim for line in run.site_rounds if line.claim}
    summed = {name: site.claim for name, site in run.summary.sites.items() if site.claim} if run.summary else {}
    return dict(sorted((claims | summed).items()))


def _warnings(run: Run) -> list[str]:
    """Warnings of the run, each once, in order; the summary repeats those written as it went."""
    found = [f"Round {x.round}: {x.text}" if x.round is not None else x.text for x in run.notices]
    said = {line.text for line in run.notices}
    found += [text for text in (run.summary.warnings if run.summary else ()) if text not in said]
    if run.unreadable:
        found.append(f"{amount(run.unreadable, 'line')} of metrics.jsonl could not be read and is missing here.")
    return found
