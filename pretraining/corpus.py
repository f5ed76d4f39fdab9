"""The images and texts that the embedded CLIP learns from: phantoms of seen kinds, captions and single signs (ours)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fed_fsad.data.phantoms import ORGANS, STYLES, caption, phantom
from fed_fsad.data.samples import Sample
from fed_fsad.data.signs import SignBook, bundled_signs, load_signs
from fed_fsad.methods.sdmad.vocabulary import SignTable, build_vocabulary
from fed_fsad.seeds import numpy_stream
from pretraining.protocol import seen_kinds, seen_signs, training_seed

NORMAL_SHARE, DOUBLE_SHARE = 0.35, 0.15
"""Of the corpus: normal images; of the abnormal ones: images with two findings."""
MIRRORED = ("brain_mri", "fundus", "oct", "histology")
"""Organs whose mirror image is one of theirs; a chest or a liver turned round would be another anatomy."""


def tokenizer_texts(seed: int, captions: int) -> list[str]:
    """What the vocabulary is learned from: every bundled sign as a prompt, every category, captions of phantoms."""
    vocabularies = [build_vocabulary([load_signs(name)]) for name in bundled_signs()]
    prompts = [text for vocabulary in vocabularies for text in vocabulary.texts]
    names = [name for vocabulary in vocabularies for task in vocabulary.tasks.values() for name in task.names]
    corpus = PhantomCorpus(seed, captions, 96)
    return prompts + names + [corpus.caption(i, numpy_stream(seed, "tokenizer", i)) for i in range(captions)]


@dataclass
class PhantomCorpus:
    """`count` phantoms of all organs, drawn when first asked for and kept as bytes.

    Hard ones: any scanner style, pose and lesion contrast. A pure function of (seed, count, size).
    """

    seed: int
    count: int
    size: int

    @cached_property
    def samples(self) -> tuple[Sample, ...]:
        """The recipes."""
        return tuple(self._recipe(i) for i in range(self.count))

    @cached_property
    def by_organ(self) -> dict[str, list[int]]:
        """Per organ the indices of its phantoms."""
        return {organ: [i for i, s in enumerate(self.samples) if s.task == organ] for organ in ORGANS}

    @cached_property
    def kinds(self) -> tuple[tuple[str, str], ...]:
        """All (organ, kind) that the corpus may show."""
        return tuple((organ, kind) for organ in ORGANS for kind in seen_kinds(organ))

    def findings(self, index: int) -> tuple[tuple[str, str], ...]:
        """The (organ, kind) that the image shows."""
        sample = self.samples[index]
        return tuple((sample.task, kind) for kind in sample.categories)

    @cached_property
    def signs(self) -> SignBook:
        """What captions may say."""
        return seen_signs()

    @cached_property
    def tables(self) -> dict[str, SignTable]:
        """Per organ the seen signs with their membership."""
        return dict(build_vocabulary([self.signs]).tasks)

    @cached_property
    def _drawn(self) -> dict[int, NDArray[np.uint8]]:
        return {}

    def _recipe(self, index: int) -> Sample:
        rng = numpy_stream(self.seed, "corpus", index)
        organ = str(rng.choice(list(ORGANS)))
        kinds: Sequence[str] = ()
        if rng.random() > NORMAL_SHARE:
            kinds = rng.permutation(seen_kinds(organ))[: 2 if rng.random() < DOUBLE_SHARE else 1].tolist()
        style, pose, contrast = int(rng.integers(len(STYLES))), rng.uniform(0.4, 1.4), rng.uniform(0.6, 1.3)
        return phantom(organ, kinds, style, training_seed(self.seed), index, pose, contrast)

    def caption(self, index: int, rng: np.random.Generator) -> str:
        """A caption of the image, another one for every stream."""
        return caption(self.samples[index], self.signs, rng)

    def pixels(self, indices: Sequence[int], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Images [N, 3, S, S] in 0..1 and lesion masks [N, S, S] in 0/1, each shifted, mirrored and exposed anew."""
        planes = torch.from_numpy(np.stack([self._planes(i) for i in indices])).float() / 255
        reach = self.size // 16
        padded = F.pad(planes, (reach,) * 4, mode="replicate")
        views = []
        for index, image in zip(indices, padded, strict=True):
            top, left = rng.integers(0, 2 * reach + 1, 2).tolist()
            view = image[:, top : top + self.size, left : left + self.size]
            mirrored = self.samples[index].task in MIRRORED and rng.random() < 0.5
            views.append(view.flip(2) if mirrored else view)
        batch = torch.stack(views)
        change = torch.from_numpy(rng.standard_normal((2, len(indices), 1, 1, 1))).float()
        images = (batch[:, :3] ** (0.1 * change[0]).exp() * (0.08 * change[1]).exp()).clamp(0, 1)
        return images, batch[:, 3]

    def _planes(self, index: int) -> NDArray[np.uint8]:
        """Image and mask as bytes, [4, S, S]."""
        if index not in self._drawn:
            source = self.samples[index].source
            mask = source.mask(self.size)
            planes = np.concatenate([source.image(self.size), np.asarray(mask, np.float32)[None]])
            self._drawn[index] = np.round(planes * 255).astype(np.uint8)
        return self._drawn[index]
