"""Pixel-level figures of trials, where masks and maps exist."""

from collections.abc import Sequence

import numpy as np

from fed_fsad.data.samples import Mask, Sample
from fed_fsad.evaluation.aupro import aupro
from fed_fsad.evaluation.metrics import macro, pixel_auroc
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


def pixel_figures(trials: Sequence[Trial], masks: Masks) -> tuple[float | None, float | None]:
    """Pixel AUROC and AUPRO (false positive rates up to 0.3), averaged over the trials that have maps and masks.

    Images without a mask are left out. (None, None) when no trial can be measured.
    """
    measured = [figures for trial in trials if (figures := _figures(trial, masks)) is not None]
    if not measured:
        return None, None
    return macro([area for area, _ in measured])[0], macro([overlap for _, overlap in measured])[0]


def _figures(trial: Trial, masks: Masks) -> tuple[float, float] | None:
    if trial.scores.map is None:
        return None
    marked = [(i, mask) for i, sample in enumerate(trial.samples) if (mask := masks.of(sample)) is not None]
    if not any(mask.any() for _, mask in marked):
        return None
    truth = np.stack([mask for _, mask in marked])
    maps = trial.scores.map[[i for i, _ in marked]].float().numpy()
    return pixel_auroc(truth, maps), aupro(truth, maps)
