"""Every support draw for itself: its figures at every K, its images, and resamples for intervals; kept on disk."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from fed_fsad.durable import replace
from fed_fsad.evaluation.categories import asked
from fed_fsad.evaluation.label_table import block, multi_label, tabulate
from fed_fsad.evaluation.metrics import Block, auroc, average_precision, bootstrap_macro, macro, sensitivity_at
from fed_fsad.evaluation.pixels import PixelFigures
from fed_fsad.evaluation.results import DrawFigures, EachDraw, defined
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.evaluation.trials import Trial
from fed_fsad.seeds import derive

IMAGE = "image_auroc"


def each_draw(
    trials: Sequence[Trial],
    measured: Sequence[PixelFigures | None],
    categories: bool,
    settings: EvaluationSettings,
) -> EachDraw:
    """One detector's trials draw by draw; `measured` are their pixel figures, known at the headline's K only.

    With `categories` also the protocols P1 to P3 and held out, macro means over the categories of the trial's task.
    """
    rows = tuple(
        DrawFigures(
            trial.draw.task,
            trial.draw.shots,
            trial.draw.number,
            tuple((sample.id, sample.source.name) for sample in trial.draw.support),
            {**_image(trial), **_pixel(pixels), **(_categories(trial, settings) if categories else {})},
        )
        for trial, pixels in zip(trials, measured, strict=True)
    )
    together: defaultdict[tuple[str, int], list[Trial]] = defaultdict(list)
    for trial in trials:
        together[trial.draw.task, trial.draw.shots].append(trial)
    resamples = {
        (task, shots, figure): values
        for (task, shots), mine in together.items()
        for figure, one in _blocks(mine, categories, settings).items()
        if (values := bootstrap_macro([one], derive(0, task)))
        is not None  # equal images are resampled alike in all runs
    }
    return EachDraw(rows, resamples)


def _image(trial: Trial) -> dict[str, float]:
    return {
        IMAGE: auroc(trial.labels, trial.image),
        "average_precision": average_precision(trial.labels, trial.image),
        "sensitivity_95": sensitivity_at(trial.labels, trial.image),
    }


def _pixel(pixels: PixelFigures | None) -> dict[str, float]:
    return {} if pixels is None else {f"pixel_{name}": value for name, value in pixels._asdict().items()}


def _categories(trial: Trial, settings: EvaluationSettings) -> dict[str, float]:
    table = tabulate(trial, settings.unseen_categories)
    areas = {protocol: macro(table.areas(protocol)) for protocol in asked(settings)}
    left_out = {"p1_left_out": float(areas["p1"][1])}
    return {**{key: mean for key, (mean, _) in areas.items()}, **left_out, **multi_label([table])}


def _blocks(trials: Sequence[Trial], categories: bool, settings: EvaluationSettings) -> dict[str, Block]:
    """What is resampled of one task at one K, by figure."""
    labels = trials[0].labels[None].astype(np.int8)
    found: dict[str, Block] = {IMAGE: (labels, np.stack([trial.image[None] for trial in trials]))}
    if categories:
        tables = [tabulate(trial, settings.unseen_categories) for trial in trials]
        found |= {protocol: block(tables, protocol) for protocol in asked(settings)}
    return found


def save_draws(draws: EachDraw, folder: Path, detector: str) -> None:
    """Write folder/draws/`detector`.json and .safetensors, and supports.csv, the same for every detector."""
    rows = [
        {
            "task": row.task,
            "shots": row.shots,
            "draw": row.number,
            **{name: defined(value) for name, value in row.figures.items()},
        }
        for row in draws.rows
    ]
    replace(folder / "draws" / f"{detector}.json", json.dumps(rows, allow_nan=False).encode())
    arrays = {json.dumps(key): np.array(values, np.float32) for key, values in sorted(draws.resamples.items())}
    replace(folder / "draws" / f"{detector}.safetensors", save(arrays))
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("task", "shots", "draw", "id", "name"))
    table.writerows((row.task, row.shots, row.number, *image) for row in draws.rows for image in row.support)
    replace(folder / "draws" / "supports.csv", text.getvalue().encode())


def load_resamples(path: Path) -> dict[tuple[str, int, str], np.ndarray[tuple[int], np.dtype[np.float32]]]:
    """What `save_draws` wrote: [n] by task, K and figure."""
    found = {}
    for name, values in load(path.read_bytes()).items():
        task, shots, figure = json.loads(name)
        found[task, shots, figure] = values
    return found
