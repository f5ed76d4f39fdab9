"""What needs no training: the yardsticks a method is held against, on its own draws and images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fed_fsad.data.features import Rows
from fed_fsad.data.samples import Sample
from fed_fsad.evaluation.bed import RowsOf, TestBed
from fed_fsad.evaluation.pixels import Masks
from fed_fsad.evaluation.protocols import compare
from fed_fsad.evaluation.results import Evaluation
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.evaluation.trials import separately
from fed_fsad.methods.method import Method, Scores

THUMBNAIL = 32


def evaluate_baselines(
    method: Method, rows_of: RowsOf, bed: TestBed, settings: EvaluationSettings, seed: int
) -> dict[str, Evaluation]:
    """Figures of the method's own untrained baselines and of two for every method, by name.

    raw_pixels: distance to the nearest support in 32 x 32 grey pixels. knn_pooled: the same in `method.embedding`.
    Supports, test images and figures are those of `evaluate` with the same arguments. Raises DataError as it does.
    """
    thumbnails = _Thumbnails()

    def ready(support: Rows, task: str) -> Callable[[Rows], dict[str, Scores]]:
        pixels = Neighbours(thumbnails.of(support.samples), support.samples)
        pooled = Neighbours(method.embedding(support.features), support.samples)

        def judge(queries: Rows) -> dict[str, Scores]:
            return {
                **method.baselines(queries.features, support, task),
                "raw_pixels": pixels.score(thumbnails.of(queries.samples)),
                "knn_pooled": pooled.score(method.embedding(queries.features)),
            }

        return judge

    found = compare(method, separately(ready), rows_of, bed, settings, seed, Masks(method.image_size))
    return {name: evaluation for name, (evaluation, _) in found.items()}


@dataclass(frozen=True)
class Neighbours:
    """Nearest neighbours among K supports: points [K, ...]."""

    points: Tensor
    samples: Sequence[Sample]

    def score(self, queries: Tensor) -> Scores:
        """Scores of [B, ...] queries by Euclidean distance.

        A category's score is the distance to the nearest normal support less that to the nearest support with the
        category; a category without supports has no score. The image score is the largest of them, or the distance to
        the nearest normal support where there are normal supports only.
        """
        # The matrix-product form of cdist rounds differently for other batch sizes.
        distance = torch.cdist(
            queries.flatten(1).double(), self.points.flatten(1).double(), compute_mode="donot_use_mm_for_euclid_dist"
        )
        normal = self._nearest(distance, [sample.is_normal for sample in self.samples])
        names = tuple(sorted({name for sample in self.samples for name in sample.categories}))
        if not names:
            return Scores(normal)
        nearest = [self._nearest(distance, [name in sample.categories for sample in self.samples]) for name in names]
        categories = torch.stack([normal - near for near in nearest], dim=1)
        return Scores(categories.amax(dim=1), categories=categories, names=names)

    @staticmethod
    def _nearest(distance: Tensor, members: Sequence[bool]) -> Tensor:
        return distance[:, torch.tensor(members)].amin(dim=1)


class _Thumbnails:
    """Small grey versions of images, each read once."""

    def __init__(self) -> None:
        self._read: dict[str, Tensor] = {}

    def of(self, samples: Sequence[Sample]) -> Tensor:
        """[N, 32, 32], the mean of the colours."""
        for sample in samples:
            if sample.id not in self._read:
                grey = sample.source.image(THUMBNAIL).mean(axis=0, dtype=np.float32)
                self._read[sample.id] = torch.from_numpy(grey)
        return torch.stack([self._read[sample.id] for sample in samples])
