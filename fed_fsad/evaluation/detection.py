"""Few-shot anomaly detection: normal or not, and where, on a task given K normal images of it."""

from collections.abc import Sequence

import numpy as np

from fed_fsad.errors import DataError
from fed_fsad.evaluation.bed import TestBed, draw_support
from fed_fsad.evaluation.metrics import auroc, average_precision, bootstrap_macro, macro, sensitivity_at, spread
from fed_fsad.evaluation.pixels import PixelFigures, mean_pixels
from fed_fsad.evaluation.results import Evaluation
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.evaluation.trials import Draw, Trial


def headline_shots(settings: EvaluationSettings) -> int:
    """The K that stands for the whole: the first of `shots` that is at least 4, else the last (ours)."""
    return next((shots for shots in settings.shots if shots >= 4), settings.shots[-1])


def plan(bed: TestBed, settings: EvaluationSettings, seed: int) -> list[Draw]:
    """Support sets of K normals for every K and draw, of the unseen task or else of every task.

    Raises DataError when the unseen task has no test image or a task has too few normals.
    """
    tasks = bed.tasks() if settings.unseen_task is None else [settings.unseen_task]
    if not set(tasks) <= set(bed.tasks()):
        raise DataError(
            f"evaluation.unseen_task {settings.unseen_task!r} has no test image; "
            f"add some, or name one of {', '.join(bed.tasks())}"
        )
    return [
        Draw(task, shots, number, tuple(draw_support(bed.pool, task, shots, number, seed, False)), shots == best)
        for best in [headline_shots(settings)]
        for task in tasks
        for shots in settings.shots
        for number in range(settings.draws)
    ]


def summarise(
    trials: Sequence[Trial], measured: Sequence[PixelFigures | None], settings: EvaluationSettings, seed: int
) -> Evaluation:
    """Means over tasks, then over draws, of one detector's trials; `measured` are their pixel figures."""
    found: dict[str, tuple[float, float]] = {}
    left_out: dict[str, int] = {}
    for shots in settings.shots:
        per_draw = [
            macro([auroc(trial.labels, trial.image) for trial in trials if _is(trial, shots, number)])
            for number in range(settings.draws)
        ]
        found[str(shots)] = spread([mean for mean, _ in per_draw])
        left_out[str(shots)] = per_draw[0][1]
    best = headline_shots(settings)
    chosen = [trial for trial in trials if trial.draw.shots == best]
    pixels = mean_pixels(measured)
    return Evaluation(
        image_auroc={key: mean for key, (mean, _) in found.items()},
        image_auroc_sd={key: deviation for key, (_, deviation) in found.items()},
        left_out=left_out,
        headline_key=str(best),
        headline_name=f"Image AUROC at K = {best}",
        resamples=_resamples(chosen, seed),
        average_precision=macro([average_precision(trial.labels, trial.image) for trial in chosen])[0],
        sensitivity=macro([sensitivity_at(trial.labels, trial.image) for trial in chosen])[0],
        pixel_auroc=pixels and pixels.auroc,
        pixel_aupro=pixels and pixels.aupro,
        pixel_dice=pixels and pixels.dice,
        extra={},
    )


def _is(trial: Trial, shots: int, number: int) -> bool:
    return trial.draw.shots == shots and trial.draw.number == number


def _resamples(trials: Sequence[Trial], seed: int) -> tuple[float, ...] | None:
    blocks = []
    for task in dict.fromkeys(trial.draw.task for trial in trials):
        mine = [trial for trial in trials if trial.draw.task == task]
        labels = mine[0].labels[None].astype(np.int8)
        blocks.append((labels, np.stack([trial.image[None] for trial in mine])))
    return bootstrap_macro(blocks, seed)
