"""The tables of a benchmark: mean, standard deviation and 95 % interval, per task and over the tasks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from fed_fsad.evaluation.report.words import entry_title
from simulations.batch.draws import HEADLINE, over_seeds, shown_shots
from simulations.batch.table import TITLES
from simulations.benchmark.collect import Collected, Row, per_draw
from simulations.benchmark.plan import BenchmarkSettings

MEAN = "mean of the tasks"
OTHERS = {
    "d24fad": ("image_auroc", "average_precision", "sensitivity_95", "pixel_auroc", "pixel_aupro", "pixel_dice"),
    "sdmad": ("p1", "p2", "p3", "image_auroc", "held_out", "map", "macro_f1", "micro_f1", "hamming", "exact_match"),
}
ORDER = ("arm", "ablation", "baseline")


@dataclass(frozen=True)
class Cell:
    """A figure over seeds and draws; NaN where it is not defined, no interval where nothing could be resampled."""

    mean: float
    sd: float
    interval: tuple[float, float] | None

    def __str__(self) -> str:
        if math.isnan(self.mean):
            return "–"
        spread = "" if math.isnan(self.sd) else f" ± {self.sd:.3f}"
        return f"{self.mean:.3f}{spread}" + (
            f" ({self.interval[0]:.2f}–{self.interval[1]:.2f})" if self.interval else ""
        )


def tables(found: Collected, settings: BenchmarkSettings) -> str:
    """Every table as Markdown."""
    headline, best = HEADLINE[settings.method], shown_shots(settings.method, settings.shots)
    shown = TITLES[headline]
    parts = [
        f"Mean ± standard deviation over {settings.seeds} seeds x {settings.draws} support draws (95 % bootstrap "
        "interval: test images are resampled within each task, and seeds as wholes).",
        *(f"### {shown} at K = {shots}\n\n{_by_task(found, headline, shots)}" for shots in settings.shots),
        f"### {shown} by K, {MEAN}\n\n{_by_shots(found, headline, settings.shots)}",
        f"### All figures at K = {best}, {MEAN}\n\n{_by_figure(found, OTHERS[settings.method], best)}",
    ]
    return "\n\n".join(parts) + "\n"


def cells(found: Collected, detector: str, figure: str, shots: int) -> dict[str, Cell]:
    """A detector's figure at one K, by task and for their mean."""
    rows = [row for row in found.rows if row.detector == detector and row.shots == shots]
    drawn = per_draw(rows, figure)
    tasks = {task: own for task, own in sorted(drawn.items()) if own}
    resampled = {task: found.resamples.get((detector, task, shots, figure), {}) for task in tasks}
    made = {
        task: _cell(list(own.values()), _percentiles([resampled[task]], found.seeds)) for task, own in tasks.items()
    }
    common = set.intersection(*(set(own) for own in tasks.values())) if tasks else set()
    means = [float(np.mean([own[key] for own in tasks.values()])) for key in sorted(common)]
    return {**made, MEAN: _cell(means, _percentiles(list(resampled.values()), found.seeds))}


def _cell(values: Sequence[float], interval: tuple[float, float] | None) -> Cell:
    if not values:
        return Cell(math.nan, math.nan, None)
    return Cell(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan, interval)


def _percentiles(
    tasks: Sequence[Mapping[str, NDArray[np.float64]]], seeds: Mapping[str, int]
) -> tuple[float, float] | None:
    """Of the mean over tasks; runs of equal seed are averaged first. None when a task has none."""
    by_seed = []
    for runs in tasks:
        ordered = sorted(runs, key=lambda run: (seeds[run], run))
        by_seed.append(
            {s: np.mean([runs[r] for r in own], axis=0) for s, own in groupby(ordered, key=seeds.__getitem__)}
        )
    common = set.intersection(*map(set, by_seed)) if by_seed else set()
    return over_seeds({seed: np.mean([own[seed] for own in by_seed], axis=0) for seed in common})


def _detectors(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Names and titles: arms, ablations, baselines; those marked with * train nothing."""
    known = sorted({(ORDER.index(row.kind), row.detector) for row in rows})
    return [
        (name, f"{TITLES.get(name) or entry_title(name)}{' *' if ORDER[kind] == 'baseline' else ''}")
        for kind, name in known
    ]


def _by_task(found: Collected, figure: str, shots: int) -> str:
    made = {title: cells(found, name, figure, shots) for name, title in _detectors(found.rows)}
    columns = sorted({task for own in made.values() for task in own} - {MEAN})
    return _markdown(
        [*columns, MEAN], {title: [own.get(task) for task in (*columns, MEAN)] for title, own in made.items()}
    )


def _by_shots(found: Collected, figure: str, shots: Sequence[int]) -> str:
    lines = {title: [cells(found, name, figure, k)[MEAN] for k in shots] for name, title in _detectors(found.rows)}
    return _markdown([f"K = {k}" for k in shots], lines)


def _by_figure(found: Collected, figures: Sequence[str], shots: int) -> str:
    present = {name for row in found.rows for name, value in row.figures.items() if value is not None}
    shown = [figure for figure in figures if figure in present]
    lines = {
        title: [cells(found, name, figure, shots)[MEAN] for figure in shown] for name, title in _detectors(found.rows)
    }
    return _markdown([TITLES[figure] for figure in shown], lines)


def _markdown(columns: Sequence[str], lines: Mapping[str, Sequence[Cell | None]]) -> str:
    rows = [["", *columns], ["---"] * (len(columns) + 1)]
    rows += [[title, *("–" if cell is None else str(cell) for cell in own)] for title, own in lines.items()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
