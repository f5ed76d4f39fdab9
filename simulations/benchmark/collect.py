"""From run directories to one tidy table: a row per run, detector, task, K and draw; and the supports of every draw."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from fed_fsad.durable import replace
from fed_fsad.evaluation.draws import load_resamples
from simulations.benchmark.execute import run_folder
from simulations.benchmark.plan import Planned

Resamples = NDArray[np.float64]
"""[n], a figure of one run on bootstrap resamples of the test images."""
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
        folder = run_folder(out, run) / "evaluation" / method / "draws"
        for path in sorted(folder.glob("*.json")):
            detector, kind, site = _who(path.stem, run.ablation)
            if kind == "ablation" and path.stem != "federated":
                continue  # the untrained start and the baselines stand in the whole method's run
            rows += [_row(run, (detector, kind, site), line) for line in json.loads(path.read_bytes())]
            for (task, shots, figure), values in load_resamples(path.with_suffix(".safetensors")).items():
                found[detector, task, shots, figure][run.name].append(values.astype(np.float64))
    resamples = {key: {run: np.mean(sites, axis=0) for run, sites in by_run.items()} for key, by_run in found.items()}
    _write_rows(rows, out / "rows.csv")
    _write_supports(runs, method, out)
    return Collected(tuple(rows), resamples, {run.name: run.seed for run in runs})


def _who(name: str, ablation: str) -> tuple[str, str, str]:
    """Detector, kind and site, of a file name as the run wrote it."""
    if ablation:
        return ablation, "ablation", ""
    if name.startswith("baseline-"):
        return name.removeprefix("baseline-"), "baseline", ""
    arm, _, site = name.partition("-")
    return arm, "arm", site


def _row(run: Planned, who: tuple[str, str, str], line: dict[str, int | str | float | None]) -> Row:
    figures = {key: value for key, value in line.items() if not isinstance(value, str) and key not in LABELS}
    return Row(run.name, run.seed, *who, str(line["task"]), int(line["shots"] or 0), int(line["draw"] or 0), figures)


def _write_rows(rows: Sequence[Row], path: Path) -> None:
    names = sorted({name for row in rows for name in row.figures})
    lines = ([*(getattr(row, label) for label in LABELS), *(row.figures.get(name) for name in names)] for row in rows)
    _write(path, (*LABELS, *names), lines)


def _write_supports(runs: Sequence[Planned], method: str, out: Path) -> None:
    lines: list[list[str]] = []
    heading: list[str] = []
    for run in runs:
        text = (run_folder(out, run) / "evaluation" / method / "draws" / "supports.csv").read_text(encoding="utf-8")
        heading, *own = csv.reader(io.StringIO(text))
        lines += [[run.name, str(run.seed), *line] for line in own]
    _write(out / "supports.csv", ("run", "seed", *heading), lines)


def _write(path: Path, heading: Sequence[str], lines: Iterable[Sequence[object]]) -> None:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(heading)
    table.writerows(lines)
    replace(path, text.getvalue().encode())


def per_draw(rows: Iterable[Row], figure: str) -> dict[str, dict[tuple[int, int], float]]:
    """By task, the figure of every (seed, draw): means over a local arm's sites and over runs of equal seed."""
    found: defaultdict[str, defaultdict[tuple[int, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if (value := row.figures.get(figure)) is not None:
            found[row.task][row.seed, row.draw].append(value)
    return {task: {key: fmean(values) for key, values in own.items()} for task, own in found.items()}
