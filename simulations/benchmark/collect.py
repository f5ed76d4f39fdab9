"""From run directories to one tidy table: a row per run, detector, task, K and draw; and the supports of every draw."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from simulations.batch.draws import Resamples, draws_folder, read_draws, who
from simulations.batch.table import write_csv
from simulations.benchmark.plan import Planned

LABELS = ("run", "seed", "detector", "kind", "site", "task", "shots", "draw")


@dataclass(frozen=True)
class Row:
    """Figures of one detector with one support set. kind: arm, ablation or baseline. site: of a local arm, or empty."""

    run: str
    seed: int
    detector: str
    kind: str
    site: str
    task: str
    shots: int
    draw: int
    figures: Mapping[str, float | None]


@dataclass(frozen=True)
class Collected:
    """Everything that completed runs measured. resamples: by detector, task, K, figure and run; local ones averaged."""

    rows: tuple[Row, ...]
    resamples: Mapping[tuple[str, str, int, str], Mapping[str, Resamples]]
    seeds: Mapping[str, int]


def collect(runs: Sequence[Planned], method: str, out: Path) -> Collected:
    """Read the runs, which must be complete, and write out/rows.csv and out/supports.csv."""
    rows: list[Row] = []
    found: defaultdict[tuple[str, str, int, str], defaultdict[str, list[Resamples]]]
    found = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for stem, lines, values in read_draws(out, run.name, method):
            detector, kind, site = (run.ablation, "ablation", "") if run.ablation else who(stem)
            if kind == "ablation" and stem != "federated":
                continue  # the untrained start and the baselines stand in the whole method's run
            rows += [_row(run, (detector, kind, site), line) for line in lines]
            for (task, shots, figure), own in values.items():
                found[detector, task, shots, figure][run.name].append(own)
    resamples = {key: {run: np.mean(sites, axis=0) for run, sites in by_run.items()} for key, by_run in found.items()}
    _write_rows(rows, out / "rows.csv")
    _write_supports(runs, method, out)
    return Collected(tuple(rows), resamples, {run.name: run.seed for run in runs})


def _row(run: Planned, who: tuple[str, str, str], line: dict[str, int | str | float | None]) -> Row:
    figures = {key: value for key, value in line.items() if not isinstance(value, str) and key not in LABELS}
    return Row(run.name, run.seed, *who, str(line["task"]), int(line["shots"] or 0), int(line["draw"] or 0), figures)


def _write_rows(rows: Sequence[Row], path: Path) -> None:
    names = sorted({name for row in rows for name in row.figures})
    lines = ([*(getattr(row, label) for label in LABELS), *(row.figures.get(name) for name in names)] for row in rows)
    write_csv(path, (*LABELS, *names), lines)


def _write_supports(runs: Sequence[Planned], method: str, out: Path) -> None:
    lines: list[list[str]] = []
    heading: list[str] = []
    for run in runs:
        text = (draws_folder(out, run.name, method) / "supports.csv").read_text(encoding="utf-8")
        heading, *own = csv.reader(io.StringIO(text))
        lines += [[run.name, str(run.seed), *line] for line in own]
    write_csv(out / "supports.csv", ("run", "seed", *heading), lines)


def per_draw(rows: Iterable[Row], figure: str) -> dict[str, dict[tuple[int, int], float]]:
    """By task, the figure of every (seed, draw): means over a local arm's sites and over runs of equal seed."""
    found: defaultdict[str, defaultdict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if (value := row.figures.get(figure)) is not None:
            found[row.task][row.seed, row.draw].append(value)
    return {task: {key: fmean(values) for key, values in own.items()} for task, own in found.items()}
