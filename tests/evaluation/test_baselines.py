import math

import pytest
import torch

from fed_fsad.evaluation import trials
from fed_fsad.evaluation.baselines import Neighbours, evaluate_baselines
from fed_fsad.evaluation.bed import TestBed
from fed_fsad.evaluation.protocols import evaluate
from fed_fsad.evaluation.settings import EvaluationSettings
from tests.evaluation.fakes import KnownCategories, NearestValue, rows_of, sample

SETTINGS = EvaluationSettings(shots=(2, 4), draws=3)
POOL = tuple(sample(f"p{i}", value=i / 7) for i in range(7))
TEST = tuple(sample(f"t{i}", *(["spot"] if i % 3 else []), value=(i * 37 % 50) / 40) for i in range(24))


def test_same_draws_images_and_figures_as_the_method() -> None:
    method = NearestValue()
    own = evaluate(method, rows_of, TestBed(POOL, TEST), SETTINGS, 0)
    found = evaluate_baselines(method, rows_of, TestBed(POOL, TEST), SETTINGS, 0)
    assert set(found) == {"own", "raw_pixels", "knn_pooled"}
    # On flat images both distances order images as the method's own score does.
    for name in ("raw_pixels", "knn_pooled"):
        assert found[name].image_auroc == pytest.approx(own.image_auroc)
        assert found[name].image_auroc_sd == pytest.approx(own.image_auroc_sd)
    values = [(not one.is_normal, -one.source.image(1)[0, 0, 0]) for one in TEST]
    wins = [a > b for label, a in values if label for other, b in values if not other]
    assert found["own"].headline == pytest.approx(sum(wins) / len(wins))


def test_the_chunk_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluate_baselines(NearestValue(), rows_of, TestBed(POOL, TEST), SETTINGS, 0)
    monkeypatch.setattr(trials, "CHUNK", 5)
    assert evaluate_baselines(NearestValue(), rows_of, TestBed(POOL, TEST), SETTINGS, 0) == whole


def test_neighbours_by_hand() -> None:
    supports = (sample("n1"), sample("n2"), sample("a", "cyst"), sample("b", "cyst", "blur"))
    scores = Neighbours(torch.tensor([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0], [0.0, 1.0]]), supports).score(
        torch.tensor([[0.0, 0.0], [6.0, 8.0]])
    )
    assert scores.names == ("blur", "cyst")
    assert scores.categories is not None
    assert scores.categories[:, 0].tolist() == pytest.approx([0 - 1, 5 - math.sqrt(36 + 49)])
    assert scores.categories[:, 1].tolist() == pytest.approx([0 - 1, 5 - 0])
    assert scores.image.tolist() == pytest.approx([-1, 5])


def test_a_distance_is_the_same_bits_in_any_batch() -> None:
    stream = torch.Generator().manual_seed(0)
    points, queries = torch.randn(4, 100, generator=stream), torch.randn(60, 100, generator=stream)
    neighbours = Neighbours(points, [sample(f"n{i}") for i in range(4)])
    alone = torch.cat([neighbours.score(one[None]).image for one in queries])
    assert torch.equal(neighbours.score(queries).image, alone)


def test_normal_supports_alone_give_the_distance_to_the_nearest() -> None:
    scores = Neighbours(torch.tensor([[[0.0]], [[3.0]]]), (sample("n1"), sample("n2"))).score(torch.tensor([[[5.0]]]))
    assert scores.image.tolist() == [2]
    assert scores.categories is None


def test_unseen_categories_are_impossible_without_supports_of_them() -> None:
    pool = (
        *(sample(f"n{i}", value=0.0 + i / 100) for i in range(2)),
        *(sample(f"c{i}", "cyst", value=0.5 + i / 100) for i in range(2)),
        *(sample(f"d{i}", "drusen", value=1.0 + i / 100) for i in range(2)),
    )
    signs = (0.0, 0.0)
    test = (
        sample("tn", value=0.05, signs=signs),
        sample("tc", "cyst", value=0.55, signs=signs),
        sample("td", "drusen", value=0.95, signs=signs),
    )
    settings = EvaluationSettings(shots=(2,), draws=2, unseen_categories=("drusen",))
    found = evaluate_baselines(KnownCategories(("cyst", "drusen")), rows_of, TestBed(pool, test), settings, 0)
    for name in ("raw_pixels", "knn_pooled"):
        assert math.isnan(found[name].image_auroc["held_out"])
        assert found[name].left_out["held_out"] == 1
        assert found[name].image_auroc["p1"] == 1.0
        assert found[name].image_auroc["binary"] == 1.0
        assert found[name].extra["exact_match"] == 1.0
