"""What an evaluation found: figures for the summary, and details for a person's eyes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fed_fsad.data.samples import Image, Mask
from fed_fsad.evaluation.metrics import percentiles

Figures = dict[str, float | None]
Summary = dict[str, float | str | list[float] | Figures | None]


@dataclass(frozen=True)
class RocCurve:
    """Points of a ROC curve of a task from (0, 0) to (1, 1). label: a number of shots, "binary", or a category."""

    task: str
    label: str
    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


@dataclass(frozen=True)
class PrCurve:
    """Points of a precision-recall curve, recall falling to 0. prevalence: the precision of guessing."""

    task: str
    label: str
    recall: tuple[float, ...]
    precision: tuple[float, ...]
    prevalence: float


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold chosen without test images: an image that scores above it is called abnormal.

    curve: the ROC and PR curve it lies on. specificity: what it promises on normal images of the same kind. normals:
    the support pool's normal images, none of them a support, that it was chosen on.
    """

    curve: str
    threshold: float
    specificity: float
    normals: int


@dataclass(frozen=True)
class ImageScore:
    """One test image's scores; `name` is what its source calls it, never a path. category_scores: empty without any."""

    name: str
    task: str
    label: int
    categories: tuple[str, ...]
    score: float
    category_scores: Mapping[str, float]


@dataclass(frozen=True)
class Evidence:
    """Why an image got its score of a category: how far each sign spoke for it, and what the likeness to the supports
    added to the signs' mean. probability: None where the method tells none.
    """

    category: str
    score: float
    signs: tuple[tuple[str, float], ...]
    supports: float = 0.0
    probability: float | None = None


@dataclass(frozen=True)
class GalleryItem:
    """An image worth looking at, [3, S, S], its mask and map [S, S] where there are any; kind says why it is here.

    evidence: of the category with the highest score and of those the image shows, if the method can tell.
    """

    score: ImageScore
    kind: str
    image: Image
    mask: Mask | None
    map: NDArray[np.float32] | None
    evidence: tuple[Evidence, ...]


@dataclass(frozen=True)
class ChosenSign:
    """A sign of a category: its AUROC on the supports, and whether it is used."""

    sign: str
    reliability: float
    kept: bool


@dataclass(frozen=True)
class Details:
    """The first support draw image by image: curves by name, an operating point by task, scores, a gallery, signs and
    thresholds by task and category.
    """

    roc: Mapping[str, RocCurve]
    precision_recall: Mapping[str, PrCurve]
    operating: Mapping[str, OperatingPoint]
    scores: tuple[ImageScore, ...]
    gallery: tuple[GalleryItem, ...]
    signs: Mapping[str, Mapping[str, tuple[ChosenSign, ...]]]
    thresholds: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class DrawFigures:
    """What one support set of a task gave: figures by name, NaN where one is not defined.

    support: id and name of every image in it, in the order drawn.
    """

    task: str
    shots: int
    number: int
    support: tuple[tuple[str, str], ...]
    figures: Mapping[str, float]


@dataclass(frozen=True)
class EachDraw:
    """Figures draw by draw, at every K.

    resamples: mean over the draws of a figure on bootstrap resamples of a task's test images, by task, K and figure;
    a figure without a value has none.
    """

    rows: tuple[DrawFigures, ...]
    resamples: Mapping[tuple[str, int, str], tuple[float, ...]]


@dataclass(frozen=True)
class Evaluation:
    """The figures of one detector, means over support draws; NaN where a figure is not defined.

    image_auroc, image_auroc_sd: mean and standard deviation over draws, by shots ("2", "4", "8") or by protocol ("p1",
    "p2", "p3", "binary", "held_out"). left_out: by the same keys, how many tasks or categories had no AUROC and are
    not in the mean. headline_key, headline_name: the entry that stands for the whole, and what a table calls it.
    resamples: the headline on bootstrap resamples of the test images, the same ones for every detector; None when it
    has no value.
    average_precision, sensitivity (at 95 % specificity), pixel figures: at the headline's shots; pixel figures are None
    without maps or masks. draws: where the settings ask for each of them.
    """

    image_auroc: Mapping[str, float]
    image_auroc_sd: Mapping[str, float]
    left_out: Mapping[str, int]
    headline_key: str
    headline_name: str
    resamples: tuple[float, ...] | None
    average_precision: float
    sensitivity: float
    pixel_auroc: float | None
    pixel_aupro: float | None
    pixel_dice: float | None
    extra: Mapping[str, float]
    details: Details | None = None
    draws: EachDraw | None = None

    @property
    def headline(self) -> float:
        """The one number to compare detectors by."""
        return self.image_auroc[self.headline_key]

    @property
    def interval(self) -> tuple[float, float] | None:
        """The headline's 95 % interval over test images; None when it has no value."""
        return percentiles(self.resamples)

    def summary(self) -> Summary:
        """The figures as JSON values: undefined ones are None, left_out is the headline's; details are not in it."""
        return {
            "headline": defined(self.headline),
            "headline_key": self.headline_key,
            "headline_name": self.headline_name,
            "interval": None if self.interval is None else list(self.interval),
            "image_auroc": _figures(self.image_auroc),
            "image_auroc_sd": _figures(self.image_auroc_sd),
            "average_precision": defined(self.average_precision),
            "sensitivity_95": defined(self.sensitivity),
            "pixel_auroc": defined(self.pixel_auroc),
            "pixel_aupro": defined(self.pixel_aupro),
            "pixel_dice": defined(self.pixel_dice),
            "left_out": self.left_out[self.headline_key],
            "left_out_each": _figures(self.left_out),
            "extra": _figures(self.extra),
        }


def defined(value: float | None) -> float | None:
    """The value, or None for NaN, which JSON does not know."""
    return None if value is None or math.isnan(value) else value


def _figures(values: Mapping[str, float]) -> Figures:
    return {key: defined(value) for key, value in values.items()}
