"""Scoring a task's test images against support sets: the same images and draws for a method and for every baseline."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fed_fsad.data.features import Rows
from fed_fsad.data.samples import Sample
from fed_fsad.errors import DataError
from fed_fsad.evaluation.bed import RowsOf, TestBed
from fed_fsad.methods.method import Method, Scores

CHUNK = 128
"""Images scored at once; bounds memory and changes no score."""

Judge = Callable[[Rows], Sequence[Mapping[str, Scores]]]
"""Scores queries against every support set, by the detector's name."""
Panel = Callable[[Sequence[Rows], str], Judge]
"""Detectors made ready on several support sets of one task."""


@dataclass(frozen=True)
class Draw:
    """One support set of a task; `maps` says whether pixel maps are worth keeping."""

    task: str
    shots: int
    number: int
    support: tuple[Sample, ...]
    maps: bool


@dataclass(frozen=True)
class Trial:
    """What one detector said of N test images of a task, given one support set."""

    draw: Draw
    samples: tuple[Sample, ...]
    scores: Scores

    @property
    def labels(self) -> NDArray[np.bool_]:
        """[N], True where the image is abnormal."""
        return np.array([not sample.is_normal for sample in self.samples], dtype=bool)

    @property
    def image(self) -> NDArray[np.float64]:
        """[N], the image scores."""
        return self.scores.image.double().numpy()


def panel_of(method: Method) -> Panel:
    """The method alone, under its own name."""

    def panel(supports: Sequence[Rows], task: str) -> Judge:
        banks = [method.fit_support(support, task) for support in supports]
        return lambda queries: [{method.name: scores} for scores in method.score_all(queries.features, banks)]

    return panel


def separately(ready: Callable[[Rows, str], Callable[[Rows], Mapping[str, Scores]]]) -> Panel:
    """A panel of detectors that are made ready on one support set at a time and share nothing between sets."""

    def panel(supports: Sequence[Rows], task: str) -> Judge:
        judges = [ready(support, task) for support in supports]
        return lambda queries: [judge(queries) for judge in judges]

    return panel


def run_trials(panel: Panel, rows_of: RowsOf, bed: TestBed, draws: Sequence[Draw]) -> dict[str, list[Trial]]:
    """Every detector's trials in the order of `draws`; features are asked for once per chunk, whatever the draws.

    Raises DataError when a detector gives a score that is not a finite number.
    """
    parts: list[dict[str, list[Scores]]] = [defaultdict(list) for _ in draws]
    with torch.no_grad():
        for task in dict.fromkeys(draw.task for draw in draws):
            mine = [(draw, part) for draw, part in zip(draws, parts, strict=True) if draw.task == task]
            judge = panel([rows_of(draw.support) for draw, _ in mine], task)
            samples = bed.queries(task)
            for start in range(0, len(samples), CHUNK):
                rows = rows_of(samples[start : start + CHUNK])
                for (draw, part), found in zip(mine, judge(rows), strict=True):
                    for name, scores in found.items():
                        check_finite(name, scores, rows.samples)
                        part[name].append(scores if draw.maps else replace(scores, map=None))
    trials: dict[str, list[Trial]] = defaultdict(list)
    for draw, part in zip(draws, parts, strict=True):
        for name, chunks in part.items():
            trials[name].append(Trial(draw, bed.queries(draw.task), _join(chunks)))
    return dict(trials)


def check_finite(name: str, scores: Scores, samples: Sequence[Sample]) -> None:
    """Raises DataError that names the first image with a score or a map that is not finite."""
    for tensor in (scores.image, scores.map, scores.categories):
        if tensor is None:
            continue
        bad = (~torch.isfinite(tensor)).flatten(1).any(1) if tensor.dim() > 1 else ~torch.isfinite(tensor)
        if bad.any():
            sample = samples[int(bad.nonzero()[0])]
            raise DataError(
                f"{name} gave test image {sample.source.name} a score that is not a finite number; "
                "lower the method's learning rate or go back to an earlier checkpoint"
            )


def _join(chunks: Sequence[Scores]) -> Scores:
    return Scores(
        image=torch.cat([chunk.image for chunk in chunks]).cpu(),
        map=_join_optional([chunk.map for chunk in chunks]),
        categories=_join_optional([chunk.categories for chunk in chunks]),
        names=chunks[0].names,
    )


def _join_optional(tensors: Sequence[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(present).cpu() if present else None
