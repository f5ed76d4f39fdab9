"""Figures of the embedded weights: what their cards state and `python -m pretraining figures` takes again."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn import functional as F

from fed_fsad.assets import load_asset
from fed_fsad.data.features import Features
from fed_fsad.data.phantoms import phantom_set
from fed_fsad.data.samples import Sample
from fed_fsad.evaluation.metrics import pixel_auroc
from fed_fsad.methods.d24fad.backbones import SMALL
from fed_fsad.methods.d24fad.baselines import nearest_patch, nearest_position, pooled, residual_scores
from fed_fsad.methods.d24fad.checkpoint import put_in_place
from fed_fsad.methods.d24fad.residuals import SCORES
from fed_fsad.methods.d24fad.resnet import SmallResNet
from fed_fsad.methods.d24fad.settings import Settings
from fed_fsad.methods.d24fad.teacher import Teacher
from fed_fsad.methods.method import Scores
from fed_fsad.seeds import numpy_stream

SHOTS, DRAWS = 4, 3
THUMBNAIL = 32
"""Side of the grey images behind "raw pixels", as in the product's own baseline."""
PRODUCT = Settings()
"""The detector's defaults: image size and score of the cards."""


@dataclass(frozen=True)
class DetectionSet:
    """One organ's images, [N, 3, S, S] in 0..1: a pool to draw supports from, and a test set with labels [N] in 0/1.

    masks: [N, S, S] of the test set, bool; None where nobody drew any.
    """

    pool: Tensor
    test: Tensor
    labels: Tensor
    masks: Tensor | None = None


def pixels(samples: Sequence[Sample], size: int) -> Tensor:
    """The samples' images, [N, 3, size, size] in 0..1."""
    return torch.from_numpy(np.stack([sample.source.image(size) for sample in samples]))


def phantom_detection_sets(
    organs: Sequence[str], seed: int, count: int, size: int, pool: int = 24
) -> dict[str, DetectionSet]:
    """Per organ `pool` normals to draw supports from, `count` normals and `count` abnormals of all kinds to test on."""
    sets = {}
    for organ in organs:
        samples = phantom_set(organ, pool + count, count, style=0, seed=seed)
        images = pixels(samples, size)
        labels = torch.tensor([int(not sample.is_normal) for sample in samples[pool:]])
        sets[organ] = DetectionSet(images[:pool], images[pool:], labels, _masks(samples[pool:], size))
    return sets


def _masks(samples: Sequence[Sample], size: int) -> Tensor:
    drawn = [sample.source.mask(size) for sample in samples]
    return torch.from_numpy(np.stack([np.zeros((size, size), dtype=bool) if mask is None else mask for mask in drawn]))


def default_score(features: Features, support: Features, size: int) -> Scores:
    """The product's own default score; features: [B, ...] queries, support: [K, ...]."""
    return residual_scores(SCORES[PRODUCT.score], features, support, size, PRODUCT.image_score)


def nearest_image(features: Features, support: Features, _: int) -> Scores:
    """Cosine distance of whole images, stages 1-3 averaged over positions, to the nearest support."""
    return Scores(1 - (pooled(features) @ pooled(support).T).amax(1))


JUDGES = {
    "default": default_score,
    "patch": nearest_patch,
    "position": nearest_position,
    "pooled": nearest_image,
}
QUICK = ("patch", "position", "pooled")
"""What a learning curve shows: the default's fine grids would take longer than the training itself."""


def detection_figures(
    teacher: Teacher, sets: Mapping[str, DetectionSet], seed: int, judges: Sequence[str] = tuple(JUDGES)
) -> dict[str, dict[str, float]]:
    """Image AUROC at K = 4 of scores of the frozen network, mean of three support draws.

    By organ: "default" (the product's) and, with masks, its "default pixel" AUROC; "patch" (nearest, any place),
    "position" (same place), "pooled" (whole image).
    """
    return {
        organ: _detection(teacher, held, numpy_stream(seed, "support", organ), judges) for organ, held in sets.items()
    }


def _detection(
    teacher: Teacher, held: DetectionSet, rng: np.random.Generator, judges: Sequence[str]
) -> dict[str, float]:
    pool, test = _features(teacher, held.pool), _features(teacher, held.test)
    size = held.test.shape[-1]

    def figures(chosen: Tensor) -> dict[str, float]:
        support = {stage: feature[chosen] for stage, feature in pool.items()}
        scores = {name: JUDGES[name](test, support, size) for name in judges}
        found = {name: auroc(held.labels, score.image) for name, score in scores.items()}
        maps = scores["default"].map if "default" in scores else None
        if held.masks is not None and maps is not None:
            found["default pixel"] = pixel_auroc(held.masks.numpy(), maps.numpy())
        return found

    return _over_draws(held, rng, figures)


def raw_pixel_figures(sets: Mapping[str, DetectionSet], seed: int) -> dict[str, dict[str, float]]:
    """Image AUROC of the distance to the nearest support in small grey images, on the draws of `detection_figures`."""
    found = {}
    for organ, held in sets.items():
        pool, test = (F.adaptive_avg_pool2d(images.mean(1), THUMBNAIL).flatten(1) for images in (held.pool, held.test))

        def figures(
            chosen: Tensor, pool: Tensor = pool, test: Tensor = test, labels: Tensor = held.labels
        ) -> dict[str, float]:
            return {"raw pixels": auroc(labels, torch.cdist(test, pool[chosen]).amin(1))}

        found[organ] = _over_draws(held, numpy_stream(seed, "support", organ), figures)
    return found


def _over_draws(
    held: DetectionSet, rng: np.random.Generator, figures: Callable[[Tensor], Mapping[str, float]]
) -> dict[str, float]:
    """Every figure's mean over the support draws; `figures` is given the supports' places in the pool."""
    found: dict[str, list[float]] = {}
    for _ in range(DRAWS):
        for name, figure in figures(torch.from_numpy(rng.permutation(len(held.pool))[:SHOTS])).items():
            found.setdefault(name, []).append(figure)
    return {name: fmean(values) for name, values in found.items()}


def frozen(network: SmallResNet) -> Teacher:
    """A copy of a network of the embedded teacher's shape as a teacher; the network itself is left in training."""
    return Teacher(copy.deepcopy(network).cpu(), SMALL, "measured")


def _features(teacher: Teacher, images: Tensor) -> dict[str, Tensor]:
    batches = [teacher.stages(batch)[:3] for batch in torch.split(images, 64)]
    return {f"f{i + 1}": torch.cat([stages[i] for stages in batches]) for i in range(3)}


def auroc(labels: Tensor, scores: Tensor) -> float:
    """Area under the ROC curve; higher scores should mean label 1."""
    return float(roc_auc_score(labels.numpy(), scores.numpy()))


def load_teacher() -> SmallResNet:
    """The teacher in the wheel. Raises CheckpointError when the file is damaged."""
    network = SmallResNet()
    put_in_place(network, load_asset("teacher/weights.safetensors"), "the embedded teacher")
    return network
