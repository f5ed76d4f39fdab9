"""From the cells' run directories to one tidy table: a row per cell, method, detector, figure and K."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from fed_fsad.evaluation.metrics import percentiles
from fed_fsad.methods.method import part_of
from fed_fsad.privacy.account import LEDGER, read_account
from fed_fsad.privacy.training import noisy
from fed_fsad.residents import resident
from fed_fsad.rundir import RunDir
from simulations.batch.draws import Resamples, read_draws, who
from simulations.batch.folder import run_folder
from simulations.batch.table import write_csv
from simulations.study.plan import Cell

COLUMNS = ("method", "detector", "kind", "metric", "K", "value", "low", "high")
COSTS = ("bytes_up", "bytes_down", "seconds", "epsilon")
RHO = "rho"


@dataclass(frozen=True)
class Figure:
    """A figure of one detector in one cell: the mean over tasks and support draws, of a local arm over hospitals, too.

    kind: arm or baseline. resamples: the same mean on resampled test images; None for figures that have none.
    """

    cell: Cell
    method: str
    detector: str
    kind: str
    metric: str
    shots: int
    value: float
    resamples: Resamples | None


@dataclass(frozen=True)
class Cost:
    """What the federation of a cell cost. epsilon: the most that a site has spent; None without privacy. rho: by
    method, the noise against the signal at the site where it was worst; no entry without privacy.
    """

    bytes_up: int
    bytes_down: int
    seconds: float
    epsilon: float | None
    rho: Mapping[str, float] = field(default_factory=dict)


def figures(cells: Sequence[Cell], out: Path) -> list[Figure]:
    """Everything that these cells, which must be complete, have measured."""
    return [figure for cell in cells for method in sorted(cell.config.methods) for figure in _of(cell, method, out)]


def costs_of(cells: Sequence[Cell], out: Path) -> dict[str, Cost]:
    """What these cells cost, by name."""
    found = {}
    for cell in cells:
        summary = RunDir(run_folder(out, cell.name)).summary()
        spent = [site["epsilon"] for site in summary["sites"].values() if site["epsilon"] is not None]
        size = summary["bytes"]
        most = max(spent, default=None)
        found[cell.name] = Cost(size["up"], size["down"], summary["seconds"]["total"], most, _worst_rho(cell, out))
    return found


def _worst_rho(cell: Cell, out: Path) -> dict[str, float]:
    """As the sites' ledgers have it."""
    run, found = RunDir(run_folder(out, cell.name)), defaultdict[str, float](float)
    for hospital in cell.config.hospitals:
        folder = run.path / "sites" / hospital.name
        noise = read_account(folder).noise if (folder / LEDGER).exists() else {}
        for name, own in noise.items():
            method = resident(name, cell.config.training[name], cell.config.seed)
            parts = hospital.policy.allowed_parts(name, tuple({part_of(tensor) for tensor in method.trainable()}))
            dims = sum(tensor.numel() for tensor in noisy(method, parts).values())
            found[name] = max(found[name], own * math.sqrt(dims))
    return dict(found)


def write_results(path: Path, found: Sequence[Figure], costs: dict[str, Cost], axes: Sequence[str]) -> None:
    """The tidy table. What a federation cost stands in its own rows: the others moved nothing."""
    lines = []
    for figure in found:
        cost = costs[figure.cell.name] if figure.detector == "federated" else None
        ends = percentiles(figure.resamples) or (None, None)
        lines.append((
            figure.cell.name, *figure.cell.labels.values(), figure.cell.seed, figure.method, figure.detector,
            figure.kind, figure.metric, figure.shots, figure.value, *ends,
            *(getattr(cost, key) if cost else None for key in COSTS), cost.rho.get(figure.method) if cost else None,
        ))  # fmt: skip
    write_csv(path, ("cell", *axes, "seed", *COLUMNS, *COSTS, RHO), lines)


def _of(cell: Cell, method: str, out: Path) -> Iterator[Figure]:
    values: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    resamples: defaultdict[tuple[str, str], defaultdict[tuple[int, str], list[Resamples]]]
    resamples = defaultdict(lambda: defaultdict(list))
    for stem, rows, by_task in read_draws(out, cell.name, method):
        detector, kind, _ = who(stem)
        values[detector, kind] += rows
        for (_, shots, metric), own in by_task.items():
            resamples[detector, kind][shots, metric].append(own)
    for (detector, kind), rows in values.items():
        for (shots, metric), value in _means(rows).items():
            whole = resamples[detector, kind].get((shots, metric))
            mean = np.mean(whole, axis=0) if whole else None
            yield Figure(cell, method, detector, kind, metric, shots, value, mean)


def _means(rows: Sequence[dict[str, Any]]) -> dict[tuple[int, str], float]:
    """By K and figure: the mean over tasks of the mean over their draws (and a local arm's hospitals)."""
    found: defaultdict[tuple[int, str], defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for metric, value in row.items():
            if metric not in ("task", "shots", "draw") and value is not None:
                found[int(row["shots"]), metric][str(row["task"])].append(float(value))
    return {key: fmean(map(fmean, tasks.values())) for key, tasks in sorted(found.items())}
