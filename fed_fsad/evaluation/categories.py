"""Telling anomalies apart: protocols P1 to P3, binary detection and held-out categories (definitions are ours).

P1, one-vs-normal: images with the category against normal images. P2, one-vs-other-anomalies: among abnormal images.
P3, multi-label: among all images. Held out: an unseen category against normal images. Images that hold an unseen
category take no part in P1 to P3; binary (abnormal against normal, by the image score) takes all images.
"""

from collections.abc import Sequence

from fed_fsad.errors import DataError
from fed_fsad.evaluation.bed import TestBed, draw_support
from fed_fsad.evaluation.label_table import Table, block, multi_label, tabulate
from fed_fsad.evaluation.metrics import (
    Block,
    auroc,
    average_precision,
    bootstrap_macro,
    macro,
    sensitivity_at,
    spread,
)
from fed_fsad.evaluation.pixels import PixelFigures, mean_pixels
from fed_fsad.evaluation.results import Evaluation
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.evaluation.trials import Draw, Trial

HEADLINE = "p1"


def headline_shots(settings: EvaluationSettings) -> int:
    """The K that figures are of: the largest."""
    return max(settings.shots)


def plan(bed: TestBed, settings: EvaluationSettings, seed: int) -> list[Draw]:
    """Support sets of K normals and K images per seen category of every seen task; K is the largest of `shots`, or
    each of them where every draw is kept.

    Raises DataError when no test image of a seen task is there or a task has too few normals.
    """
    tasks = [task for task in bed.tasks() if task != settings.unseen_task]
    if not tasks:
        raise DataError("no test image shows a seen task, so categories cannot be told apart; add test images of one")
    unseen = set(settings.unseen_categories)
    pool = [sample for sample in bed.pool if not unseen & set(sample.categories)]
    best = headline_shots(settings)
    return [
        Draw(task, shots, number, tuple(draw_support(pool, task, shots, number, seed, True)), shots == best)
        for task in tasks
        for shots in (settings.shots if settings.each_draw else (best,))
        for number in range(settings.draws)
    ]


def summarise(
    trials: Sequence[Trial], measured: Sequence[PixelFigures | None], settings: EvaluationSettings, seed: int
) -> Evaluation:
    """Macro means over all categories of all tasks, then means over draws, of one detector's trials at the headline's
    K; `measured` are the pixel figures of all of them.
    """
    trials = [trial for trial in trials if trial.draw.shots == headline_shots(settings)]
    draws = [[trial for trial in trials if trial.draw.number == number] for number in range(settings.draws)]
    tables = [[tabulate(trial, settings.unseen_categories) for trial in draw] for draw in draws]
    protocols = asked(settings)
    found: dict[str, list[tuple[float, int]]] = {
        protocol: [macro([area for table in draw for area in table.areas(protocol)]) for draw in tables]
        for protocol in protocols
    }
    found["binary"] = [macro([auroc(trial.labels, trial.image) for trial in draw]) for draw in draws]
    figures = {key: spread([mean for mean, _ in values]) for key, values in found.items()}
    labels = [multi_label(draw) for draw in tables]
    pixels = mean_pixels(measured)
    return Evaluation(
        image_auroc={key: mean for key, (mean, _) in figures.items()},
        image_auroc_sd={key: deviation for key, (_, deviation) in figures.items()},
        left_out={key: values[0][1] for key, values in found.items()},
        headline_key=HEADLINE,
        headline_name="Macro AUROC one-vs-normal (P1)",
        resamples=bootstrap_macro(_blocks(tables), seed),
        average_precision=macro([average_precision(trial.labels, trial.image) for trial in trials])[0],
        sensitivity=macro([sensitivity_at(trial.labels, trial.image) for trial in trials])[0],
        pixel_auroc=pixels and pixels.auroc,
        pixel_aupro=pixels and pixels.aupro,
        pixel_dice=pixels and pixels.dice,
        extra={key: macro([draw[key] for draw in labels])[0] for key in labels[0]},
    )


def asked(settings: EvaluationSettings) -> list[str]:
    """The protocols that have an AUROC per category."""
    return ["p1", "p2", "p3", *(["held_out"] if settings.unseen_categories else [])]


def _blocks(draws: Sequence[Sequence[Table]]) -> list[Block]:
    """One block per task: the headline protocol's labels and the scores of every draw."""
    return [block(mine, HEADLINE) for mine in zip(*draws, strict=True)]
