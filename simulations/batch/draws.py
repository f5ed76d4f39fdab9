"""What the support draws of runs say together: rows as each run wrote them, and intervals over images and seeds."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed_fsad.evaluation.draws import load_resamples
from fed_fsad.evaluation.metrics import percentiles
from fed_fsad.seeds import numpy_stream
from simulations.batch.folder import run_folder

Resamples = NDArray[np.float64]
"""[n], a figure on bootstrap resamples of the test images."""
ByTask = dict[tuple[str, int, str], Resamples]
"""By task, K and figure."""
HEADLINE = {"d24fad": "image_auroc", "sdmad": "p1"}
"""The figure that stands for a method."""


def shown_shots(method: str, shots: Sequence[int]) -> int:
    """The K of tables that show one: D²4FAD's first of at least 4, else the largest."""
    first = (k for k in sorted(shots) if k >= 4)
    return next(first, max(shots)) if method == "d24fad" else max(shots)


def draws_folder(out: Path, run: str, method: str) -> Path:
    """Where a run keeps the figures of every support draw."""
    return run_folder(out, run) / "evaluation" / method / "draws"


def read_draws(out: Path, run: str, method: str) -> Iterator[tuple[str, list[dict[str, Any]], ByTask]]:
    """Of every detector of a run: the name of its file, its rows, its resamples."""
    for path in sorted(draws_folder(out, run, method).glob("*.json")):
        found = load_resamples(path.with_suffix(".safetensors"))
        resamples = {key: values.astype(np.float64) for key, values in found.items()}
        yield path.stem, json.loads(path.read_bytes()), resamples


def who(stem: str) -> tuple[str, str, str]:
    """Detector, kind (arm or baseline) and site, of a file name as the run wrote it."""
    if stem.startswith("baseline-"):
        return stem.removeprefix("baseline-"), "baseline", ""
    arm, _, site = stem.partition("-")
    return arm, "arm", site


def over_seeds(by_seed: Mapping[int, Resamples]) -> tuple[float, float] | None:
    """The 95 % interval of the mean: resample b takes the b-th resample of test images of as many seeds as there are,
    drawn with replacement, the same ones whatever is measured. None without seeds.
    """
    if not by_seed:
        return None
    stacked = np.stack([by_seed[seed] for seed in sorted(by_seed)])
    seeds, n = stacked.shape
    picks = numpy_stream(0, "benchmark seeds").integers(seeds, size=(seeds, n))
    return percentiles(np.take_along_axis(stacked, picks, axis=0).mean(axis=0))
