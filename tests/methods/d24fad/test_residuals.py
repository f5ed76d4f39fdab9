"""Residuals against slow references, what a bank must keep for them, and the supports' own scores."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fed_fsad.methods.d24fad.residuals import (
    REACH,
    RESIDUALS,
    SCORES,
    Residual,
    near_patches,
    patches,
    stage_patches,
    standard_patches,
)
from fed_fsad.methods.d24fad.settings import Settings
from tests.methods.d24fad.helpers import SIZE, TASK, array, images, method, rows
from tests.reference import d24fad as reference
from tests.reference.d24fad import Array


def views(seed: int, count: int, side: int = 4) -> dict[str, torch.Tensor]:
    """Teacher and student features of random images, stage 1 of `side` x `side` cells."""
    made = torch.Generator().manual_seed(seed)
    shapes = {"1": (5, side), "2": (6, side // 2), "3": (7, side // 4)}
    return {
        f"{kind}{stage}": torch.rand(count, channels, cells, cells, generator=made)
        for kind in ("f", "value")
        for stage, (channels, cells) in shapes.items()
    }


def stage_reference(query: Array, supports: list[Array], *, standard: bool) -> Array:
    """One stage [C, H, W], nearest by cosine; `standard`: channels less the supports' mean, over their deviation."""
    every = np.concatenate([one.reshape(len(one), -1) for one in supports], axis=1)
    mean, deviation = (every.mean(axis=1), every.std(axis=1, ddof=1)) if standard else (0.0, 1.0)
    bank = [(column - mean) / deviation for column in every.T]
    out = np.zeros(query.shape[1:])
    for y, x in np.ndindex(out.shape):
        out[y, x] = min(1 - reference.cosine((query[:, y, x] - mean) / deviation, other) for other in bank)
    return out


@pytest.mark.parametrize("standard", [False, True])
@pytest.mark.parametrize("stage", ["f1", "f2"])
def test_a_stage_alone_is_compared_by_cosine_and_standardised_by_the_supports(stage: str, standard: bool) -> None:
    query, support = views(1, 2), views(2, 3)
    (found,) = (standard_patches if standard else stage_patches)(stage)(query, support)
    for image in range(2):
        known = [array(one) for one in support[stage]]
        expected = stage_reference(array(query[stage][image]), known, standard=standard)
        assert np.allclose(array(found[image]), expected, atol=1e-4)


@pytest.mark.parametrize("made", [stage_patches, standard_patches])
def test_a_large_stage_is_averaged_down(made: Callable[[str], Residual]) -> None:
    query, support = views(1, 1, side=64), views(2, 1, side=64)
    halved = [{"f1": torch.nn.functional.avg_pool2d(view["f1"], 2)} for view in (query, support)]
    (found,) = made("f1")(query, support)
    assert found.shape == (1, 32, 32)
    assert torch.allclose(found, made("f1")(*halved)[0])


def test_near_patches_forgive_a_move_within_reach_only() -> None:
    support = views(3, 1, side=32)
    for step in (REACH, REACH + 1):
        moved = dict(support)
        moved["f2"] = torch.roll(support["f2"], step, dims=-1)
        # A stage 3 that is the same everywhere leaves the place to stage 2.
        moved["f3"] = support["f3"] = torch.ones_like(support["f3"])
        inner = near_patches(moved, support)[0][:, :, step:]
        assert (float(inner.max()) < 1e-5) == (step <= REACH)
        assert float(patches(moved, support)[0].max()) < 1e-5


@pytest.mark.parametrize("score", list(SCORES))
def test_every_score_can_be_set_and_depends_on_its_own_image_alone(score: str) -> None:
    detector = method(score=score)
    bank = detector.fit_support(rows(detector.features(images(3, seed=2))), TASK)
    features = detector.features(images(3, seed=1))
    whole = detector.score(features, bank)
    alone = detector.score({name: value[1:2] for name, value in features.items()}, bank)
    assert whole.map is not None
    assert alone.map is not None
    assert whole.map.shape == (3, SIZE, SIZE)
    assert torch.allclose(whole.map[1], alone.map[0], atol=1e-5)
    assert len(set(whole.image.tolist())) == 3


def test_settings_and_scores_name_the_same() -> None:
    assert set(Settings.model_fields["score"].annotation.__args__) == set(SCORES)  # type: ignore[union-attr]
    assert Settings().score == "fused"
    assert Settings(preset="official").score == "d24fad"


def test_the_fused_map_is_the_sum_of_its_residuals_maps() -> None:
    query, support = images(2, seed=1), images(3, seed=2)
    maps = []
    for score in ("fused", *SCORES["fused"]):
        detector = method(score=score)
        bank = detector.fit_support(rows(detector.features(support)), TASK)
        made = detector.score(detector.features(query), bank).map
        assert made is not None
        maps.append(made)
    assert torch.allclose(maps[0], torch.stack(maps[1:]).sum(dim=0), atol=1e-5)


def test_the_fused_score_is_the_mean_of_the_maps_highest_hundredth() -> None:
    detector = method()
    bank = detector.fit_support(rows(detector.features(images(2, seed=2))), TASK)
    scores = detector.score(detector.features(images(1, seed=1)), bank)
    assert scores.map is not None
    highest = np.sort(array(scores.map[0]).ravel())[-math.ceil(SIZE * SIZE / 100) :]
    assert scores.image.item() == pytest.approx(highest.mean(), abs=1e-5)


@pytest.mark.parametrize("changes", [{}, {"score": "d24fad"}, {"score": "student_patches", "norm": "batch"}])
def test_support_scores_are_those_of_a_bank_without_the_support(changes: dict[str, Any]) -> None:
    detector = method(**changes)
    features = detector.features(images(4, seed=3))
    support = rows(features)
    found = detector.support_scores(detector.fit_support(support, TASK))
    assert found is not None
    for left in range(4):
        others = detector.fit_support(support.select([i for i in range(4) if i != left]), TASK)
        expected = detector.score({name: value[left : left + 1] for name, value in features.items()}, others).image
        assert found[left].item() == pytest.approx(expected.item(), abs=1e-5)


def test_adding_and_removing_supports_equals_a_fresh_bank() -> None:
    detector = method()
    support = rows(detector.features(images(4, seed=3)))
    parts = [detector.fit_support(support.select(part), TASK) for part in ([0, 1], [2, 3])]
    changed, fresh = parts[0].add(parts[1]).remove(["image1"]), detector.fit_support(support.select([0, 2, 3]), TASK)
    query = detector.features(images(2, seed=4))
    assert torch.allclose(detector.score(query, changed).image, detector.score(query, fresh).image, atol=1e-6)
    before, after = detector.support_scores(changed), detector.support_scores(fresh)
    assert before is not None
    assert after is not None
    assert torch.allclose(before, after, atol=1e-6)


def test_a_single_support_scores_but_has_no_score_of_its_own() -> None:
    detector = method()
    support = rows(detector.features(images(1)))
    bank = detector.fit_support(support, TASK)
    assert detector.support_scores(bank) is None
    assert detector.support_scores(bank.add(bank)) is None
    query = detector.score(detector.features(images(1, seed=8)), bank).image.item()
    assert query > detector.score(support.features, bank).image.item()


def test_every_residual_but_the_published_one_has_a_name() -> None:
    assert set(RESIDUALS) == {name for name in SCORES if name not in ("fused", "d24fad")}
