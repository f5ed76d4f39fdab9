"""Images of several anomalies at once: how many, which, all of them seen, their masks together."""

from collections import Counter

import numpy as np
import pytest

from fed_fsad.data.build import hospital_samples, server_samples
from fed_fsad.data.phantoms import HELD_OUT, ORGANS, PhantomSource, phantom_set
from fed_fsad.data.phantoms.sets import all_seen
from fed_fsad.data.phantoms.world import draw_patient
from fed_fsad.data.samples import Sample
from fed_fsad.data.settings import PhantomData, PhantomHolding

SIZE = 64
MOVED = {"oct"}
"""Organs whose lesions displace what another lesion is drawn on, so that masks are no plain union."""


def several(samples: list[Sample]) -> list[Sample]:
    return [sample for sample in samples if len(sample.categories) > 1]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.7, 1.0])
def test_the_share_is_kept_and_every_kind_leads_as_often(share: float) -> None:
    samples = phantom_set("brain_mri", 3, 20, 0, 5, multiple=share)
    assert [sample.is_normal for sample in samples] == [True] * 3 + [False] * 20
    assert len(several(samples)) == round(20 * share)
    assert len({sample.id for sample in samples}) == 23
    if share == 1.0:
        counts = Counter(len(sample.categories) for sample in samples[3:])
        assert counts == {2: 15, 3: 5}
        shown = Counter(name for sample in samples for name in sample.categories)
        assert min(shown[kind] for kind in ORGANS["brain_mri"].kinds) >= 4


@pytest.mark.parametrize("organ", ORGANS)
def test_no_kind_leads_more_images_of_several_anomalies_than_another(organ: str) -> None:
    kinds = ORGANS[organ].kinds
    samples = phantom_set(organ, 0, 4 * len(kinds), 0, 2, multiple=0.25)
    assert len(several(samples)) == len(kinds)
    leads = [kinds[place % len(kinds)] for place, sample in enumerate(samples) if len(sample.categories) > 1]
    assert Counter(leads) == dict.fromkeys(kinds, 1)
    for place, sample in enumerate(samples):
        assert kinds[place % len(kinds)] in sample.categories
        assert list(sample.categories) == [kind for kind in kinds if kind in sample.categories]


def test_a_larger_set_holds_the_smaller_one_and_other_seeds_other_partners() -> None:
    large = phantom_set("chest_xray", 2, 24, 0, 9, multiple=0.5)
    assert phantom_set("chest_xray", 2, 11, 0, 9, multiple=0.5) == large[:13]
    other = phantom_set("chest_xray", 2, 24, 0, 10, multiple=0.5)
    assert [sample.categories for sample in other] != [sample.categories for sample in large]


@pytest.mark.parametrize("organ", ORGANS)
def test_no_anomaly_hides_another_at_any_size(organ: str) -> None:
    for sample in several(phantom_set(organ, 0, 2 * len(ORGANS[organ].kinds), 0, 11, multiple=1.0)):
        assert all_seen(sample)
        assert isinstance(sample.source, PhantomSource)
        whole = draw_patient(sample.source, SIZE, sample.categories).image
        for kind in sample.categories:
            rest = [name for name in sample.categories if name != kind]
            changed = np.abs(whole - draw_patient(sample.source, SIZE, rest).image).max(axis=0)
            mask = draw_patient(sample.source, SIZE, (kind,)).mask
            assert (changed[mask] > 0.02).mean() > 0.3, (sample.source.name, kind)


def test_what_cannot_be_seen_together_is_drawn_alone() -> None:
    # a dark metastasis all but vanishes in a fatty liver
    only = frozenset(("liver_ct", kind) for kind in ("hypervascular mass", "hepatic cyst"))
    samples = phantom_set("liver_ct", 0, 6, 0, 1, exclude=only, multiple=1.0)
    alone = [sample for sample in samples if len(sample.categories) == 1]
    assert len(alone) >= 3
    assert all(all_seen(sample) for sample in several(samples))
    both = PhantomSource("liver_ct", ("hypodense metastases", "steatosis"), 0, 1, 0)
    assert not all_seen(Sample("", "liver_ct", both.kinds, None, both))


@pytest.mark.parametrize("organ", sorted(set(ORGANS) - MOVED))
def test_the_mask_is_the_union_of_the_anomalies(organ: str) -> None:
    for sample in several(phantom_set(organ, 0, 4, 0, 3, multiple=1.0)):
        assert isinstance(sample.source, PhantomSource)
        alone = [draw_patient(sample.source, SIZE, (kind,)).mask for kind in sample.categories]
        union, mask = np.any(alone, axis=0), sample.source.mask(SIZE)
        assert (union & mask).sum() / (union | mask).sum() > 0.97, sample.source.name


def test_a_withheld_category_is_nobodys_partner() -> None:
    for organ in ORGANS:
        drawn = {
            (organ, kind)
            for s in phantom_set(organ, 0, 12, 0, 1, exclude=HELD_OUT, multiple=1)
            for kind in s.categories
        }
        assert not drawn & HELD_OUT


def test_the_share_reaches_hospitals_pool_and_test_and_none_is_the_default() -> None:
    held = {"a": PhantomHolding(kind="phantoms", organs=("fundus",), normal=2, abnormal=8)}
    nobody: frozenset[str] = frozenset()
    for share, expected in ((0.0, (0, 0, 0)), (0.5, (4, 4, 6))):
        data = PhantomData(kind="phantoms", test_normal=2, test_abnormal=12, pool=2, multiple=share)
        parties = (hospital_samples(data, held, "a", 0, nobody, None), *server_samples(data, held, 0, nobody, None))
        assert tuple(len(several(list(samples))) for samples in parties) == expected
