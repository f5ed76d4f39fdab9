"""Everything the template needs, made from a loaded run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fed_fsad.evaluation.report import charts, detection, federation, guarantees, shares, site_tables, tables
from fed_fsad.evaluation.report.forest import Forest, forest
from fed_fsad.evaluation.report.load import Run
from fed_fsad.evaluation.report.operating import Confusion, Operation, confusions, operations
from fed_fsad.evaluation.report.pictures import galleries, sign_sheet, signs
from fed_fsad.evaluation.report.records import Details
from fed_fsad.evaluation.report.results import Result, results, span
from fed_fsad.evaluation.report.sheet import Sheet, Value, sheet
from fed_fsad.evaluation.report.svg import Chart
from fed_fsad.evaluation.report.words import (
    amount,
    data_size,
    difference,
    duration,
    interval,
    method_title,
    percent,
    plain,
    score,
)


@dataclass(frozen=True)
class Answer:
    """One method's comparison, in words and drawn."""

    result: Result
    forest: Forest | None


@dataclass(frozen=True)
class Panel:
    """What one method does on one task. title: of the method."""

    title: str
    task: str
    charts: tuple[Chart, ...]
    at: Operation | None


@dataclass(frozen=True)
class Taken:
    """Who is taken for whom by one method on one task. title: of the method."""

    name: str
    title: str
    confusion: Confusion

    def share(self, row: int, column: int) -> float:
        """Percent of the images that show the row's category: the colour of its cell."""
        return round(100 * self.confusion.counts[row][column] / max(1, self.confusion.images[row]), 1)

    @property
    def sheet(self) -> Sheet:
        """Its counts, a row per category shown."""
        found = self.confusion
        rows: list[tuple[Value, ...]] = [(name, *found.counts[i]) for i, name in enumerate(found.names)]
        return sheet(("shows, called", *found.names), rows)


def context(run: Run) -> dict[str, Any]:
    """The template's variables."""
    return {
        "run": run,
        "told": _told(run),
        "facts": _facts(run),
        "answers": _answers(run),
        "figures": tables.figures(run),
        "notes": _notes(run),
        "panels": _panels(run),
        "operating": tables.operating(run),
        "calling": tables.calling(run),
        "galleries": galleries(run),
        "signs": signs(run),
        "sign_sheet": sign_sheet(run),
        "taken": _taken(run),
        "curves": _curves(run),
        "sites": site_tables.sites(run),
        "promises": guarantees.promises(run),
        "hospital_level": guarantees.hospital_level(run),
        "hospital_claim": guarantees.hospital_claim(run),
        "attendance": federation.attendance(run, "attendance"),
        "traffic": federation.traffic(run, "traffic"),
        "failures": site_tables.failures(run),
        "rounds": site_tables.rounds(run),
        "privacy": charts.privacy(run, "privacy"),
        "accounts": site_tables.accounts(run),
        "skipped": tables.skipped(run),
        "warnings": _warnings(run),
        "holdings": site_tables.holdings(run),
        "shares": shares.picture(run.shares, "shares"),
        "crowded": shares.crowded(run.shares),
        "tested": tables.tested(run),
        "environment": run.environment.facts(),
        **{word.__name__: word for word in (score, plain, interval, difference, percent)},
    }


def _drawn(found: Sequence[Chart | None]) -> list[Chart]:
    return [chart for chart in found if chart is not None]


def _told(run: Run) -> str:
    """The run in one sentence."""
    methods = " and ".join(method_title(method) for method in run.methods) or "a detector"
    watching = {str(found["name"]) for found in run.hospitals if found.get("role") == "predict-only"}
    trained = (
        f"{amount(len(set(run.sites) - watching), 'site')} trained {methods} together for {amount(_done(run), 'round')}"
    )
    images = {(x.task, x.name) for details in run.details.values() for x in details.scores}
    tested = f"the figures are of {amount(len(images), 'test image')} of the server's own" if images else ""
    return f"{trained}; no image left its site" + (f", and {tested}." if tested else ".")


def _done(run: Run) -> int:
    done = run.rounds[-1].round if run.rounds else 0
    return run.summary.rounds if run.summary and run.summary.rounds is not None else done


def _facts(run: Run) -> list[tuple[str, str]]:
    """The header's figures."""
    done, planned = _done(run), run.planned_rounds
    seconds = run.summary.seconds.total if run.summary else sum(line.seconds for line in run.rounds)
    total = run.summary.bytes if run.summary else None
    up = total.up if total else sum(line.bytes_up for line in run.rounds)
    down = total.down if total else sum(line.bytes_down for line in run.rounds)
    seed = run.summary.seed if run.summary and run.summary.seed is not None else run.config.get("seed")
    return [
        ("rounds", f"{done} of {planned}" if planned and planned != done else str(done)),
        ("sites", str(len(run.sites))),
        ("time in rounds", duration(seconds)),
        ("to the sites", data_size(down)),
        ("to the server", data_size(up)),
        ("seed", "–" if seed is None else str(seed)),
        ("warnings", str(len(_warnings(run)))),
    ]


def _answers(run: Run) -> list[Answer]:
    every = results(run)
    return [Answer(result, forest(result, f"forest-{i}", span(every))) for i, result in enumerate(every)]


def _curves(run: Run) -> list[list[Chart]]:
    """A row of charts per method."""
    rows = []
    for i, method in enumerate(run.methods):
        title = method_title(method)
        found = (charts.headline(run, method, title, f"headline-{i}"),
                 charts.detection(run, method, title, f"detection-{i}"),
                 charts.losses(run, method, title, f"losses-{i}"))  # fmt: skip
        rows.append(_drawn(found))
    return [row for row in rows if row]


def _panels(run: Run) -> list[Panel]:
    """Names of panels are numbers: methods and tasks come from folders and files and may be called anything."""
    panels = []
    for i, (method, details) in enumerate(run.details.items()):
        at = {found.task: found for found in operations(details)}
        for j, task in enumerate(details.tasks):
            drawn = _drawn(_panel(details, task, at.get(task), f"{i}-{j}"))
            if drawn:
                panels.append(Panel(method_title(method), plain(task), tuple(drawn), at.get(task)))
    return panels


def _panel(details: Details, task: str, at: Operation | None, name: str) -> list[Chart | None]:
    """In runs before tasks were kept with their curves, the curves' names begin with them where there are several."""
    only = len(details.tasks) == 1
    curves = {
        key: x
        for key, x in details.roc.items()
        if x.task == task or (not x.task and (only or key.startswith(f"{task}, ")))
    }
    precise = {key: x for key, x in details.precision_recall.items() if x.task == task}
    return [
        detection.roc(curves, at, f"roc-{name}"),
        detection.precision_recall(precise, at, f"precision-recall-{name}"),
        detection.histogram(details, task, at, f"scores-{name}"),
    ]


def _taken(run: Run) -> list[Taken]:
    found = [(method_title(method), one) for method, details in run.details.items() for one in confusions(details)]
    return [Taken(f"matrix-{i}", title, one) for i, (title, one) in enumerate(found)]


def _notes(run: Run) -> list[str]:
    """What each method's summary adds to its figures."""
    notes = []
    for method, found in sorted(run.summary.methods.items()) if run.summary else ():
        if found.left_out:
            left = amount(found.left_out, "category", "categories")
            notes.append(f"{method_title(method)}: {left} without positives or negatives left out of the macro means.")
        notes += [f"{method_title(method)}: {note}" for note in found.notes]
    return notes


def _warnings(run: Run) -> list[str]:
    """Warnings of the run, each once, in order; the summary repeats those written as it went."""
    found = [f"Round {x.round}: {x.text}" if x.round is not None else x.text for x in run.notices]
    said = {line.text for line in run.notices}
    found += [text for text in (run.summary.warnings if run.summary else ()) if text not in said]
    if run.unreadable:
        found.append(f"{amount(run.unreadable, 'line')} of metrics.jsonl could not be read and is missing here.")
    return found
