"""Captions of phantom images, made of signs: what a CLIP model reads in pretraining (ours)."""

from collections.abc import Sequence

from numpy.random import Generator

from fed_fsad.data.samples import Sample
from fed_fsad.data.signs import SignBook

NORMAL = (
    "a normal {modality}",
    "{modality} with no abnormality",
    "a normal {modality} image showing {signs}",
    "a {modality} image showing {signs}",
    "{modality}: {signs}",
)
ABNORMAL = (
    "{modality} with {names}",
    "a {modality} image showing {names}: {signs}",
    "a {modality} image showing {signs}",
    "{modality}: {signs}",
    "an abnormal {modality} image showing {signs}, consistent with {names}",
)


def caption(sample: Sample, signs: SignBook, rng: Generator) -> str:
    """One random sentence: the modality, some of the image's signs in any order, its categories' names or not.

    Raises ConfigError when the sign list does not know the sample's task, and KeyError for an unknown category.
    """
    task = signs[sample.task]
    if sample.is_normal:
        seen, wordings = _some(task.normal, rng), NORMAL
    else:
        seen = [sign for category in sample.categories for sign in _some(task.categories[category], rng)]
        wordings = ABNORMAL
    seen = list(dict.fromkeys(seen))
    wording = wordings[rng.integers(len(wordings))]
    return wording.format(modality=task.modality, signs=", ".join(seen), names=" and ".join(sample.categories))


def _some(signs: Sequence[str], rng: Generator) -> list[str]:
    """One to four of the signs, in random order."""
    count = rng.integers(1, min(4, len(signs)) + 1)
    return [signs[i] for i in rng.permutation(len(signs))[:count]]
