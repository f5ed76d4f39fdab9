"""The phantom world: reproducible, independent streams, masks that mark what was drawn."""

import dataclasses
import hashlib
import subprocess
import sys
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from fed_fsad.data.phantoms import HELD_OUT, ORGANS, STYLES, PhantomSource, phantom, phantom_set
from fed_fsad.errors import ConfigError

SIZE = 64
ANOMALIES = [(organ.task, kind) for organ in ORGANS.values() for kind in organ.kinds]
HIDDEN_CHANGE = {"drusen", "subretinal fluid", "cystoid oedema", "hydrocephalus"}
"""These also displace the layers or the fluid around what the mask marks."""


def source(organ: str, kinds: tuple[str, ...] = (), seed: int = 5, index: int = 0, style: int = 0) -> PhantomSource:
    return PhantomSource(organ, kinds, style, seed, index)


def test_six_organs_and_twenty_five_anomalies() -> None:
    assert sorted(ORGANS) == ["brain_mri", "chest_xray", "fundus", "histology", "liver_ct", "oct"]
    assert len(set(ANOMALIES)) == 25


@pytest.mark.parametrize("organ", ORGANS)
def test_image_and_mask_keep_the_contract(organ: str) -> None:
    for kinds, style in zip([(), *((kind,) for kind in ORGANS[organ].kinds)], range(len(STYLES)), strict=False):
        image, mask = source(organ, kinds, style=style).image(SIZE), source(organ, kinds, style=style).mask(SIZE)
        assert image.shape == (3, SIZE, SIZE)
        assert image.dtype == np.float32
        assert 0 <= image.min() < image.max() <= 1
        assert mask.shape == (SIZE, SIZE)
        assert mask.dtype == bool
        assert mask.any() == bool(kinds)


@pytest.mark.parametrize(("organ", "kind"), ANOMALIES)
def test_every_anomaly_has_pixels_in_every_image(organ: str, kind: str) -> None:
    for index, size in product(range(12), (32, 96)):
        assert source(organ, (kind,), index=index).mask(size).any(), (index, size)


@pytest.mark.parametrize(("organ", "kind"), ANOMALIES)
def test_mask_marks_what_the_lesion_changed(organ: str, kind: str) -> None:
    # Independent of the generator's own bookkeeping: the same patient with lesions of no contrast.
    inside, outside = [], []
    for index in range(6):
        sick = source(organ, (kind,), index=index)
        healthy = dataclasses.replace(sick, lesion_contrast=0.0)
        change, mask = np.abs(sick.image(SIZE) - healthy.image(SIZE)).mean(axis=0), sick.mask(SIZE)
        inside.append(change[mask].mean())
        outside.append(change[~mask].mean())
    assert np.mean(inside) > (2 if kind in HIDDEN_CHANGE else 4) * np.mean(outside)
    assert np.mean(inside) > 0.01


@pytest.mark.parametrize("organ", ORGANS)
def test_same_recipe_same_bits_and_other_index_another_patient(organ: str) -> None:
    kinds = (ORGANS[organ].kinds[0],)
    first = source(organ, kinds).image(SIZE)
    for other in (source(organ, kinds, index=1), source(organ, kinds, seed=6), source(organ)):
        assert np.abs(first - other.image(SIZE)).mean() > 0.01
    for index in range(40):  # push the recipe out of the cache of drawings
        source(organ, index=index).image(32)
    np.testing.assert_array_equal(first, source(organ, kinds).image(SIZE))


def test_what_is_handed_out_may_be_changed() -> None:
    sick = source("fundus", ("enlarged cup",))
    image, mask = sick.image(SIZE), sick.mask(SIZE)
    image[:], mask[:] = 0, False
    assert sick.image(SIZE).max() > 0.5
    assert sick.mask(SIZE).any()


def test_same_bits_in_another_process_and_in_any_order() -> None:
    recipes = [source(organ.task, (organ.kinds[-1],)) for organ in ORGANS.values()]
    script = (
        "import hashlib\nfrom fed_fsad.data.phantoms import ORGANS, PhantomSource\n"
        "for o in reversed(ORGANS.values()):\n"
        "    print(hashlib.sha256(PhantomSource(o.task, (o.kinds[-1],), 0, 5, 0).image(32).tobytes()).hexdigest())"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert printed[::-1] == [hashlib.sha256(recipe.image(32).tobytes()).hexdigest() for recipe in recipes]


@pytest.mark.parametrize(("organ", "kind"), ANOMALIES)
def test_style_changes_pixels_but_not_the_mask(organ: str, kind: str) -> None:
    plain, soft = source(organ, (kind,)), source(organ, (kind,), style=2)
    assert np.abs(plain.image(SIZE) - soft.image(SIZE)).mean() > 0.005
    np.testing.assert_array_equal(plain.mask(SIZE), soft.mask(SIZE))


@pytest.mark.parametrize("organ", ORGANS)
def test_faint_lesions_lie_in_the_same_anatomy(organ: str) -> None:
    for kind in ORGANS[organ].kinds:
        changes = []
        for contrast in (0.25, 0.5, 1.0):
            sick = dataclasses.replace(source(organ, (kind,)), lesion_contrast=contrast)
            healthy = dataclasses.replace(sick, lesion_contrast=0.0)
            changes.append(float(np.abs(sick.image(SIZE) - healthy.image(SIZE)).mean()))
        assert 0 < changes[0] < changes[1] < changes[2], kind


def test_pose_jitter_moves_the_patient_and_the_lesion_with_it() -> None:
    still = [dataclasses.replace(source("brain_mri", index=i), pose_jitter=0.0) for i in range(8)]
    moved = [dataclasses.replace(s, pose_jitter=3.0) for s in still]

    def spread(sources: list[PhantomSource]) -> float:
        columns = np.arange(SIZE)
        return float(np.std([np.average(columns, weights=s.image(SIZE)[0].sum(axis=0)) for s in sources]))

    assert spread(moved) > 2 * spread(still)
    sick = dataclasses.replace(source("liver_ct", ("hepatic cyst",)), pose_jitter=3.0)
    healthy = dataclasses.replace(sick, lesion_contrast=0.0)
    change = healthy.image(SIZE)[0] - sick.image(SIZE)[0]
    darker = change > 0.5 * change.max()  # the lesion down to half its depth
    mask = sick.mask(SIZE)
    assert (darker & mask).sum() / (darker | mask).sum() > 0.8


def test_two_anomalies_at_once_have_both_masks() -> None:
    both = phantom("fundus", ("enlarged cup", "hard exudates"), 0, 1, 0)
    assert both.categories == ("hard exudates", "enlarged cup")
    assert both.id == phantom("fundus", ("hard exudates", "enlarged cup"), 0, 1, 0).id
    mask = both.source.mask(96)
    assert mask is not None
    regions, count = ndimage.label(mask)
    areas = sorted(np.bincount(regions.ravel())[1:])
    assert count >= 4  # the disc and several spots
    assert areas[-1] > 3 * areas[-2]


def test_ids_are_content_based_and_unique() -> None:
    base: dict[str, Any] = {"organ": "oct", "kinds": ("drusen",), "style": 1, "seed": 2, "index": 3}
    one = phantom(**base)
    assert one.id == phantom(**base).id
    variants: list[dict[str, Any]] = [
        {"organ": "liver_ct", "kinds": ("steatosis",)},
        {"kinds": ()},
        {"style": 2},
        {"seed": 3},
        {"index": 4},
        {"pose_jitter": 0.5},
        {"lesion_contrast": 0.5},
    ]
    ids = {phantom(**{**base, **change}).id for change in variants}
    assert len(ids | {one.id}) == len(variants) + 1
    assert phantom(**base, pose_jitter=1).id == one.id  # an int setting is the same recipe
    assert one.source.name == "oct drusen 3"


def test_set_spreads_the_abnormal_images_evenly() -> None:
    samples = phantom_set("liver_ct", 5, 10, 0, 7)
    assert [s.is_normal for s in samples] == [True] * 5 + [False] * 10
    kinds = [s.categories[0] for s in samples if not s.is_normal]
    counts = [kinds.count(kind) for kind in ORGANS["liver_ct"].kinds]
    assert max(counts) - min(counts) <= 1
    assert len({s.id for s in samples}) == 15
    assert phantom_set("liver_ct", 3, 4, 0, 7)[:3] == samples[:3]  # a larger set contains the smaller one


def test_excluded_kinds_are_never_drawn() -> None:
    for organ in ORGANS:
        drawn = {(s.task, *s.categories) for s in phantom_set(organ, 0, 40, 0, 1, exclude=HELD_OUT)}
        assert drawn == {(organ, kind) for kind in ORGANS[organ].kinds} - HELD_OUT


def test_one_anomaly_per_organ_is_held_out() -> None:
    assert sorted(task for task, _ in HELD_OUT) == sorted(ORGANS)
    assert set(ANOMALIES) >= HELD_OUT


def test_impossible_wishes_end_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"'brain_mrt' does not exist; did you mean 'brain_mri'\?"):
        phantom("brain_mrt", (), 0, 0, 0)
    with pytest.raises(ConfigError, match=r"no anomaly 'drusn'; did you mean 'drusen'\?"):
        phantom("oct", ("drusn",), 0, 0, 0)
    for style in (-1, len(STYLES)):
        with pytest.raises(ConfigError, match=f"use 0 to {len(STYLES) - 1}"):
            phantom("oct", (), style, 0, 0)
    everything = frozenset(("oct", kind) for kind in ORGANS["oct"].kinds)
    with pytest.raises(ConfigError, match="every anomaly"):
        phantom_set("oct", 1, 1, 0, 0, exclude=everything)
    assert len(phantom_set("oct", 2, 0, 0, 0, exclude=everything)) == 2
    with pytest.raises(ValueError, match="names no anomaly"):
        phantom_set("oct", 1, 1, 0, 0, exclude=frozenset({("oct", "glioma")}))


@pytest.mark.parametrize("organ", ORGANS)
def test_raw_pixels_tell_little(organ: str) -> None:
    # Distance of raw 32 px images to the nearest of 4 normal supports: a detector has to see more than that.
    samples = phantom_set(organ, 92, 60, 0, 77)
    pixels = np.stack([s.source.image(32).ravel() for s in samples])
    queries, labels = pixels[32:], [not s.is_normal for s in samples[32:]]
    aurocs = [
        roc_auc_score(labels, np.linalg.norm(queries[:, None] - pixels[None, k : k + 4], axis=2).min(axis=1))
        for k in range(0, 32, 4)
    ]
    assert 0.4 < np.mean(aurocs) < 0.65
