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
from fed_fsad.data.phantoms import phantom_set
from fed_fsad.data.samples import Sample
from fed_fsad.methods.d24fad.backbones import SMALL
from fed_fsad.methods.d24fad.baselines import nearest_patch, nearest_position, pooled
from fed_fsad.methods.d24fad.checkpoint import put_in_place
from fed_fsad.methods.d24fad.resnet import SmallResNet
from fed_fsad.methods.d24fad.teacher import Teacher
from fed_fsad.seeds import numpy_stream

SHOTS, DRAWS = 4, 3
THUMBNAIL = 32
"""Side of the grey images behind "raw pixels", as in the product's own baseline."""


@dataclass(frozen=True)
class DetectionSet:
    """One organ's images, [N, 3, S, S] in 0..1: a pool to draw supports from, and a test set with labels [N] in 0/1."""

    pool: Tensor
    test: Tensor
    labels: Tensor


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
        sets[organ] = DetectionSet(images[:pool], images[pool:], labels)
    return sets


def detection_figures(teacher: Teacher, sets: Mapping[str, DetectionSet], seed: int) -> dict[str, dict[str, float]]:
    """Image AUROC at K = 4 of the frozen network's nearest-neighbour scores, mean of three support draws.

    By organ: "patch" (any place), "position" (same place), "pooled" (whole image).
    """
    return {organ: _detection(teacher, held, numpy_stream(seed, "support", organ)) for organ, held in sets.items()}


def _detection(teacher: Teacher, held: DetectionSet, rng: np.random.Generator) -> dict[str, float]:
    pool, test = _features(teacher, held.pool), _features(teacher, held.test)
    size = held.test.shape[-1]

    def scores(chosen: Tensor) -> dict[str, Tensor]:
        support = {stage: feature[chosen] for stage, feature in pool.items()}
        return {
            "patch": nearest_patch(test, support, size).image,
            "position": nearest_position(test, support, size).image,
            "pooled": 1 - (pooled(test) @ pooled(support).T).amax(1),
        }

    return _over_draws(held, rng, scores)


def raw_pixel_figures(sets: Mapping[str, DetectionSet], seed: int) -> dict[str, dict[str, float]]:
    """Image AUROC of the distance to the nearest support in small grey images, on the draws of `detection_figures`."""
    found = {}
    for organ, held in sets.items():
        pool, test = (F.adaptive_avg_pool2d(images.mean(1), THUMBNAIL).flatten(1) for images in (held.pool, held.test))

        def scores(chosen: Tensor, pool: Tensor = pool, test: Tensor = test) -> dict[str, Tensor]:
            return {"raw pixels": torch.cdist(test, pool[chosen]).amin(1)}

        found[organ] = _over_draws(held, numpy_stream(seed, "support", organ), scores)
    return found


def _over_draws(
    held: DetectionSet, rng: np.random.Generator, scores: Callable[[Tensor], Mapping[str, Tensor]]
) -> dict[str, float]:
    """AUROC of every score, mean over the support draws; `scores` is given the supports' places in the pool."""
    found: dict[str, list[float]] = {}
    for _ in range(DRAWS):
        for name, score in scores(torch.from_numpy(rng.permutation(len(held.pool))[:SHOTS])).items():
            found.setdefault(name, []).append(auroc(held.labels, score))
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
