"""Maps and scores against scipy and slow references; what a score may not depend on."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from scipy import ndimage

from fed_fsad.methods.d24fad.baselines import nearest_patch, nearest_position, pooled
from fed_fsad.methods.d24fad.scoring import combine, score_images, smooth
from tests.methods.d24fad.helpers import SIZE, TASK, array, images, method, rows
from tests.reference import d24fad as reference


@examples(max_examples=25, deadline=None)
@given(size=st.integers(8, 40), sigma=st.floats(0.3, 9), seed=st.integers(0, 999))
def test_the_blur_is_scipys_on_each_image_by_itself(size: int, sigma: float, seed: int) -> None:
    """Golden test for defect a: a blur across the batch would mix the three maps. Also with radius beyond the map."""
    maps = np.random.default_rng(seed).random((3, size, size))
    expected = np.stack([ndimage.gaussian_filter(one, sigma, mode="reflect", truncate=4.0) for one in maps])
    assert np.allclose(smooth(torch.from_numpy(maps), sigma).numpy(), expected, atol=1e-9)


def test_scales_are_upsampled_summed_and_blurred() -> None:
    grids = [np.random.default_rng(side).random((2, side, side)) for side in (8, 4, 2)]
    maps = combine([torch.from_numpy(grid) for grid in grids], 32)
    for image in range(2):
        assert np.allclose(maps[image].numpy(), reference.anomaly_map([g[image] for g in grids], 32), atol=1e-9)


def test_image_scores_are_the_maps_maximum_and_mean() -> None:
    maps = torch.tensor([[[0.0, 1.0], [2.0, 5.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert score_images(maps, "max").image.tolist() == [5, 1]
    assert score_images(maps, "mean").image.tolist() == [2, 1]


@pytest.mark.parametrize(("scale", "image_score"), [("sqrt_chw", "max"), ("sqrt_c", "mean")])
def test_scores_follow_the_formulas(scale: str, image_score: str) -> None:
    detector = method(score="d24fad", l2w_scale=scale, image_score=image_score)
    query, support = detector.features(images(2, seed=1)), detector.features(images(3, seed=2))
    scores = detector.score(query, detector.fit_support(rows(support), TASK))
    queries = [array(f) for f in detector._student(query["e4"])]
    supports = [array(f) for f in detector._student(support["e4"])]
    for image in range(2):
        distances = []
        for stage in range(3):
            kernel = array(detector.trainable()[f"weighting/phi.{stage}.weight"])[:, :, 0, 0]
            bias = array(detector.trainable()[f"weighting/phi.{stage}.bias"])
            q, values = queries[stage][image], list(supports[stage])
            divisor = math.sqrt(q.size if scale == "sqrt_chw" else q.shape[0])
            mixed = reference.weighted_support(q, values, [reference.keys(kernel, bias, v) for v in values], divisor)
            distances.append(reference.distance_map(q, mixed))
        expected = reference.anomaly_map(distances, SIZE)
        assert scores.map is not None
        assert np.allclose(array(scores.map[image]), expected, atol=1e-5)
        whole = expected.max() if image_score == "max" else expected.mean()
        assert scores.image[image].item() == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_score_does_not_depend_on_its_batch(norm: str) -> None:
    """Golden test 1: the same image among other images, in another place, and alone."""
    detector = method(norm=norm)
    bank = detector.fit_support(rows(detector.features(images(2, seed=9))), TASK)
    batch = images(4, seed=1)
    mixed = torch.cat([1 - images(3, seed=2), batch[1:2]])
    first, second, alone = (detector.score(detector.features(b), bank) for b in (batch, mixed, batch[1:2]))
    assert first.map is not None
    assert second.map is not None
    assert alone.map is not None
    assert torch.allclose(first.map[1], second.map[3], atol=1e-5)
    assert torch.allclose(first.map[1], alone.map[0], atol=1e-5)
    assert first.image[1].item() == pytest.approx(second.image[3].item(), abs=1e-5)


def test_a_changed_bank_equals_encoding_anew() -> None:
    """Golden test 2: cached, added and removed supports give the map of re-encoded ones."""
    detector = method()
    support = rows(detector.features(images(5, seed=3)))
    query = detector.features(images(2, seed=4))
    grown = detector.fit_support(support.select([0, 1]), TASK).add(
        detector.fit_support(support.select([2, 3, 4]), TASK)
    )
    changed = detector.score(query, grown.remove(["image1"])).map
    anew = detector.score(query, detector.fit_support(support.select([0, 2, 3, 4]), TASK)).map
    assert changed is not None
    assert anew is not None
    assert torch.allclose(changed, anew, atol=1e-5)


def test_a_query_that_is_the_only_support_is_perfectly_normal() -> None:
    detector = method()
    features = detector.features(images(1))
    scores = detector.score(features, detector.fit_support(rows(features), TASK))
    assert scores.image.item() == pytest.approx(0, abs=1e-5)


def test_nearest_patch_is_the_nearest_of_all_patches() -> None:
    detector = method()
    query, support = detector.features(images(2, seed=1)), detector.features(images(2, seed=2))
    scores = nearest_patch(query, support, SIZE)
    banks = [(array(support["f2"][k]), array(support["f3"][k])) for k in range(2)]
    for image in range(2):
        patches = (array(query["f2"][image]), array(query["f3"][image]))
        expected = reference.anomaly_map([reference.nearest_patch_distances(patches, banks)], SIZE)
        assert scores.map is not None
        assert np.allclose(array(scores.map[image]), expected, atol=1e-5)
        assert scores.image[image].item() == pytest.approx(expected.max(), abs=1e-5)


def test_nearest_position_is_the_nearest_support_at_each_position() -> None:
    detector = method()
    query, support = detector.features(images(1, seed=1)), detector.features(images(3, seed=2))
    distances = []
    for stage in ("f1", "f2", "f3"):
        per_support = [reference.distance_map(array(query[stage][0]), array(one)) for one in support[stage]]
        distances.append(np.minimum.reduce(per_support))
    scores = nearest_position(query, support, SIZE)
    assert scores.map is not None
    assert np.allclose(array(scores.map[0]), reference.anomaly_map(distances, SIZE), atol=1e-5)


def test_baselines_find_a_planted_square() -> None:
    detector = method()
    normal = images(1, seed=5)
    planted = normal.clone()
    planted[:, :, 40:56, 8:24] = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    features, support = detector.features(torch.cat([planted, normal])), rows(detector.features(normal))
    baselines = detector.baselines(features, support, TASK)
    assert set(baselines) == {"knn", "position_nn", "published"}
    beside_the_published = method(score="d24fad").baselines(features, support, TASK)
    assert set(beside_the_published) == {"knn", "position_nn", "fused"}
    bank = detector.fit_support(support, TASK)
    assert torch.equal(beside_the_published["fused"].image, detector.score(features, bank).image)
    for scores in (baselines["knn"], baselines["position_nn"]):
        assert scores.map is not None
        row, column = divmod(int(scores.map[0].argmax()), SIZE)
        assert 32 <= row < 64
        assert 0 <= column < 32
        assert scores.image[1].item() == pytest.approx(0, abs=1e-5)


def test_only_nearest_patch_forgives_a_patch_that_moved() -> None:
    detector = method()
    features = detector.features(images(1, seed=6))
    mirrored = {name: value.transpose(2, 3) for name, value in features.items()}
    assert nearest_patch(mirrored, features, SIZE).image.item() == pytest.approx(0, abs=1e-5)
    assert nearest_position(mirrored, features, SIZE).image.item() > 0.1


def test_pooled_is_the_mean_over_positions_of_length_one() -> None:
    detector = method()
    features = detector.features(images(3))
    expected = np.concatenate([array(features[stage]).mean(axis=(2, 3)) for stage in ("f1", "f2", "f3")], axis=1)
    expected /= np.sqrt((expected**2).sum(axis=1, keepdims=True))
    assert np.allclose(array(pooled(features)), expected, atol=1e-6)
    assert torch.equal(detector.embedding(features), pooled(features))
