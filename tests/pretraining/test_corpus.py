import numpy as np
import pytest
import torch

from fed_fsad.data.phantoms import HELD_OUT, ORGANS
from fed_fsad.data.phantoms.world import PhantomSource
from fed_fsad.data.signs import load_signs
from fed_fsad.seeds import derive
from pretraining.corpus import PhantomCorpus
from pretraining.protocol import seen_kinds, seen_signs, training_seed, validation_seed

CORPUS = PhantomCorpus(seed=0, count=600, size=32)


def test_no_held_out_kind_is_drawn_and_every_seen_kind_is() -> None:
    drawn = {(sample.task, kind) for sample in CORPUS.samples for kind in sample.categories}
    assert not drawn & HELD_OUT
    assert drawn == {(organ, kind) for organ in ORGANS for kind in seen_kinds(organ)}


def test_signs_that_only_held_out_kinds_have_are_never_said() -> None:
    book, seen = load_signs("phantoms"), seen_signs()
    for task, category in HELD_OUT:
        entry = book[task]
        others = {s for name, signs in entry.categories.items() if name != category for s in signs} | set(entry.normal)
        unique = set(entry.categories[category]) - others
        assert category not in seen[task].categories
        assert not unique & set(seen[task].vocabulary)
        said = [CORPUS.caption(i, np.random.default_rng(i)) for i in CORPUS.by_organ[task]]
        assert not [text for text in said for sign in (*unique, category) if sign in text]


def test_no_seed_of_pretraining_is_one_a_config_can_reach() -> None:
    seeds = [s for n in range(50) for s in (training_seed(n), validation_seed(n))]
    assert max(seeds) < 0 <= min(derive(n, "anything") for n in range(50))
    assert len(set(seeds)) == 100
    for sample in CORPUS.samples:
        assert isinstance(sample.source, PhantomSource)
        assert sample.source.seed == -1


def test_the_corpus_is_hard_and_mixed() -> None:
    sources = [sample.source for sample in CORPUS.samples if isinstance(sample.source, PhantomSource)]
    assert {source.style for source in sources} == {0, 1, 2, 3, 4, 5}
    assert 0.28 < np.mean([sample.is_normal for sample in CORPUS.samples]) < 0.42
    assert 0.06 < np.mean([len(sample.categories) == 2 for sample in CORPUS.samples]) < 0.14
    assert min(source.lesion_contrast for source in sources) < 0.65
    assert max(source.pose_jitter for source in sources) > 1.3


def test_pixels_follow_from_the_stream_and_keep_masks_on_their_lesions() -> None:
    abnormal = [i for i, sample in enumerate(CORPUS.samples) if not sample.is_normal][:8]
    images, masks = CORPUS.pixels(abnormal, np.random.default_rng(0))
    again, _ = CORPUS.pixels(abnormal, np.random.default_rng(0))
    other, _ = CORPUS.pixels(abnormal, np.random.default_rng(1))
    assert images.shape == (8, 3, 32, 32)
    assert masks.shape == (8, 32, 32)
    assert torch.equal(images, again)
    assert not torch.equal(images, other)
    assert set(masks.flatten().tolist()) <= {0.0, 1.0}
    assert 0 <= float(images.min()) <= float(images.max()) <= 1


def test_image_and_mask_are_shifted_and_mirrored_together(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = PhantomCorpus(seed=0, count=20, size=32)
    plane = np.random.default_rng(0).integers(0, 2, (32, 32), dtype=np.uint8) * 255
    monkeypatch.setattr(corpus, "_planes", lambda index: np.stack([plane] * 4))
    images, masks = corpus.pixels(range(20), np.random.default_rng(3))
    assert torch.equal((images[:, 0] > 0.5).float(), masks)
    assert len({mask.numpy().tobytes() for mask in masks}) > 10
