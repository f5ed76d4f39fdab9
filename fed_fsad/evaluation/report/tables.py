"""The report's tables: what is shown is rounded, what the CSV link carries is not."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from fed_fsad.evaluation.report.load import Run
from fed_fsad.evaluation.report.records import Account, SiteLine, SiteSummary
from fed_fsad.evaluation.report.results import Result, compared
from fed_fsad.evaluation.report.words import (
    GAP,
    amount,
    data_size,
    difference,
    duration,
    epsilon,
    figure_title,
    method_title,
    score,
    small,
)


@dataclass(frozen=True)
class Cell:
    """One cell. note: small print under the text; best: the highest figure of its column."""

    text: str
    raw: float | int | str | None = None
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """rows: as long as `columns`; the first cell of a row is its heading. numeric: columns set as numbers."""

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: frozenset[int] = frozenset()

    @property
    def link(self) -> str:
        """The table as a CSV file inside a data: address."""
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([cell.text if cell.raw is None else cell.raw for cell in row] for row in self.rows)
        return "data:text/csv;charset=utf-8," + quote(buffer.getvalue())


def _table(name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], words: int = 1) -> Table:
    """A table whose first `words` columns are words and whose other columns are numbers."""
    return Table(name, caption, tuple(columns), tuple(map(tuple, rows)), frozenset(range(words, len(columns))))


def closing(results: Sequence[Result]) -> Table | None:
    """What each method is compared with, one row each; the difference to the federated figure as small print."""
    rows = []
    for group, key, title in compared(results):
        cells = [Cell(title, note="" if group == "arm" else "baseline")]
        rows.append([*cells, *(_compared(result, group, key) for result in results)])
    columns = ("", *(f"{result.title}: {result.figure}" for result in results))
    return _table("closing", "Federated against everything else", columns, rows) if rows else None


def _compared(result: Result, group: str, key: str) -> Cell:
    entry = next((e for e in result.entries if (e.group, e.key) == (group, key)), None)
    if entry is None:
        return Cell(GAP, note="\u00a0")
    own = result.federated
    note = "" if own is None or entry is own else difference(entry.value - own.value)
    if entry is own and result.interval:
        note = f"{score(result.interval[0])} to {score(result.interval[1])}"
    return Cell(score(entry.value), entry.value, note, best=score(entry.value) == score(result.entries[0].value))


def figures(run: Run) -> Table | None:
    """Every detection figure per method, with the spread over support draws."""
    rows = []
    for method, found in sorted(run.summary.methods.items()) if run.summary else ():
        measured = {f"image AUROC, {figure_title(key)}": (v, found.image_auroc_sd.get(key))
                    for key, v in found.image_auroc.items()}  # fmt: skip
        measured |= {"pixel AUROC": (found.pixel_auroc, None), "pixel AUPRO": (found.pixel_aupro, None)}
        for what, (value, spread) in measured.items():
            if value is not None or what.startswith("image"):
                rows.append(
                    [Cell(method_title(method)), Cell(what), Cell(score(value), value), Cell(score(spread), spread)]
                )
    columns = ("method", "figure", "mean", "sd over support draws")
    return _table("figures", "Detection figures of the federated model", columns, rows, 2) if rows else None


def sites(run: Run) -> Table | None:
    """What each site did, spent and would have reached alone."""
    summed = run.summary.sites if run.summary else {}
    methods = sorted({method for site in summed.values() for method in site.local})
    rows = []
    for name in run.sites:
        lines = [line for line in run.site_rounds if line.site == name]
        bad = [line for line in lines if line.status != "ok"]
        found = summed.get(name)
        eps, guarantee = _spent(run, name)
        done, failed = (found.rounds, found.failures) if found else (len(lines) - len(bad), len(bad))
        examples = found.examples if found else None
        alone = [found.local.get(method) if found else None for method in methods]
        rows.append([
            Cell(name), Cell(str(done), done), Cell(str(failed), failed),
            Cell(GAP if examples is None else f"{examples:,}", examples),
            Cell(epsilon(eps) if eps is not None else "no DP", eps, guarantee),
            *(Cell(score(value), value) for value in alone),
        ])  # fmt: skip
    columns = (
        "site",
        "rounds",
        "failures",
        "examples",
        "ε spent",
        *(f"{method_title(m)}, local only" for m in methods),
    )
    return _table("sites", "The sites", columns, rows) if rows else None


def _spent(run: Run, site: str) -> tuple[float | None, str]:
    """ε of a site and what it is about: the most any source says, for a ledger is charged before a reply leaves."""
    told = [line for line in run.site_rounds if line.site == site and line.epsilon is not None][-1:]
    known: list[Account | SiteLine | SiteSummary] = [*told]
    known += [run.accounts[site]] if site in run.accounts else []
    known += [run.summary.sites[site]] if run.summary and site in run.summary.sites else []
    spent = [source.epsilon for source in known if source.epsilon is not None]
    delta = next((source.delta for source in known if source.delta is not None), None)
    unit = next((source.unit for source in known if source.unit), "record")
    return (max(spent), f"δ = {small(delta)}, per {unit}") if spent else (None, "")


def failures(run: Run) -> Table | None:
    """Every round in which a site's reply did not count, and why."""
    rows = [
        [
            Cell(f"{line.round}", line.round),
            Cell(line.site),
            Cell(line.status.replace("_", " ")),
            Cell(line.reason or GAP),
        ]
        for line in run.site_rounds
        if line.status != "ok"
    ]
    rows += [
        [Cell(f"{line.round}", line.round), Cell(site), Cell("rejected"), Cell(reason)]
        for line in run.rounds
        for site, reason in line.rejected.items()
        if not any(x.round == line.round and x.site == site and x.status != "ok" for x in run.site_rounds)
    ]
    columns = ("round", "site", "what happened", "reason")
    return _table("failures", "Replies that did not count", columns, rows, 4) if rows else None


def rounds(run: Run) -> Table | None:
    """Every round: replies, time and bytes."""
    rows = [
        [
            Cell(f"{x.round}", x.round, f"attempt {x.attempt}" if x.attempt > 1 else ""),
            Cell(f"{x.replies}", x.replies), Cell(duration(x.seconds), x.seconds),
            Cell(data_size(x.bytes_down), x.bytes_down), Cell(data_size(x.bytes_up), x.bytes_up),
        ]
        for x in run.rounds
    ]  # fmt: skip
    columns = ("round", "valid replies", "time", "to the sites", "to the server")
    return _table("rounds", "Every round", columns, rows) if rows else None


def skipped(run: Run) -> Table | None:
    """Images that could not be read."""
    found = run.summary.skipped_images if run.summary else run.skipped
    rows = [[Cell(image.name), Cell(image.reason)] for image in found]
    return _table("skipped", f"{amount(len(rows), 'image')} left out", ("image", "reason"), rows, 2) if rows else None
