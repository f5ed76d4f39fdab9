"""Pixel-level figures of trials, where masks and maps exist."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fed_fsad.data.samples import Mask, Sample
from fed_fsad.evaluation.aupro import aupro
from fed_fsad.evaluation.metrics import best_dice, macro, pixel_auroc
from fed_fsad.evaluation.trials import Trial


class Masks:
    """The masks of test images at one size [S, S], each read once however many detectors are measured on it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._read: dict[str, Mask | None] = {}

    def of(self, sample: Sample) -> Mask | None:
        """The sample's mask, or None when nobody marked it."""
        if sample.id not in self._read:
            self._read[sample.id] = sample.source.mask(self.size)
        return self._read[sample.id]


class PixelFigures(NamedTuple):
    """Of one trial, or means over several: AUROC, AUPRO (false positive rates up to 0.3), best-threshold Dice."""

    auroc: float
    aupro: float
    dice: float


def pixel_figures(trial: Trial, masks: Masks) -> PixelFigures | None:
    """The figures of a trial that has maps and at least one abnormal pixel; images without a mask are left out."""
    if trial.scores.map is None:
        return None
    marked = [(i, mask) for i, sample in enumerate(trial.samples) if (mask := masks.of(sample)) is not None]
    if not any(mask.any() for _, mask in marked):
        return None
    truth = np.stack([mask for _, mask in marked])
    maps = trial.scores.map[[i for i, _ in marked]].float().numpy()
    return PixelFigures(pixel_auroc(truth, maps), aupro(truth, maps), best_dice(truth, maps))


def mean_pixels(measured: Sequence[PixelFigures | None]) -> PixelFigures | None:
    """Means over the trials that could be measured; None when none could."""
    known = [figures for figures in measured if figures is not None]
    return PixelFigures(*(macro(values)[0] for values in zip(*known, strict=True))) if known else None
