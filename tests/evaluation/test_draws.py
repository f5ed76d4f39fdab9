"""Every draw for itself: its rows average to the evaluation's figures, its resamples to the intervals."""

import json
from pathlib import Path

import numpy as np
import pytest

from fed_fsad.evaluation.bed import TestBed
from fed_fsad.evaluation.draws import load_resamples, save_draws
from fed_fsad.evaluation.metrics import percentiles
from fed_fsad.evaluation.protocols import evaluate
from fed_fsad.evaluation.results import EachDraw
from fed_fsad.evaluation.settings import EvaluationSettings
from tests.evaluation.fakes import KnownCategories, KnownScores, NearestValue, rows_of, sample

POOL = tuple(sample(f"p{i}", value=i / 10) for i in range(6))
DETECTION = EvaluationSettings(shots=(2, 4), draws=3, each_draw=True)
CATEGORIES = EvaluationSettings(shots=(1, 2), draws=2, each_draw=True)
NAMES = ("cyst", "rim")


def images(lesion: int | None = None) -> TestBed:
    stream = np.random.default_rng(3)
    kinds = ([], ["spot"]) * 8
    return TestBed(
        POOL,
        tuple(
            sample(f"t{i}", *kind, value=float(stream.random()), score=float(stream.random()), lesion=lesion)
            for i, kind in enumerate(kinds)
        ),
    )


def labelled() -> TestBed:
    """Six images of two categories, one with both, and supports of each."""
    pool = (*POOL, sample("c", "cyst"), sample("d", "cyst"), sample("r", "rim"))
    shown = ((), (), ("cyst",), ("rim",), ("cyst", "rim"), ("cyst",))
    signs = ((-1, -2), (0.5, -1), (1, -1), (-0.5, 2), (2, 0.2), (-0.2, -3))
    score = (0, 1, 2, 3, 0.5, 2)
    test = [sample(f"x{i}", *own, signs=signs[i], score=score[i]) for i, own in enumerate(shown)]
    return TestBed(pool, tuple(test))


def kept(found: EachDraw | None) -> EachDraw:
    assert found is not None
    return found


def test_draws_are_kept_only_where_the_settings_ask_for_them() -> None:
    plain = DETECTION.model_copy(update={"each_draw": False})
    assert evaluate(NearestValue(), rows_of, images(), plain, 1).draws is None


def test_the_rows_of_detection_average_to_its_figures() -> None:
    found = evaluate(NearestValue(), rows_of, images(), DETECTION, 1)
    rows = kept(found.draws).rows
    assert [(row.shots, row.number) for row in rows] == [(k, d) for k in (2, 4) for d in range(3)]
    for shots, key in ((2, "2"), (4, "4")):
        areas = [row.figures["image_auroc"] for row in rows if row.shots == shots]
        assert found.image_auroc[key] == pytest.approx(np.mean(areas))
        assert found.image_auroc_sd[key] == pytest.approx(np.std(areas, ddof=1))
    best = [row.figures for row in rows if row.shots == 4]
    assert found.average_precision == pytest.approx(np.mean([own["average_precision"] for own in best]))
    assert found.sensitivity == pytest.approx(np.mean([own["sensitivity_95"] for own in best]))
    assert [len(row.support) for row in rows] == [2, 2, 2, 4, 4, 4]


def test_pixel_figures_stand_at_the_headlines_k_only() -> None:
    found = evaluate(KnownScores(maps=True), rows_of, images(lesion=2), DETECTION, 1)
    measured = {row.shots: {name for name in row.figures if name.startswith("pixel")} for row in kept(found.draws).rows}
    assert measured == {2: set(), 4: {"pixel_auroc", "pixel_aupro", "pixel_dice"}}
    assert found.pixel_dice == pytest.approx(kept(found.draws).rows[-1].figures["pixel_dice"])


def test_categories_are_measured_at_every_k_and_the_summary_stays_that_of_the_largest() -> None:
    plain = CATEGORIES.model_copy(update={"each_draw": False})
    method = KnownCategories(NAMES)
    found = evaluate(method, rows_of, labelled(), CATEGORIES, 1, details=True)
    assert found.summary() == evaluate(method, rows_of, labelled(), plain, 1).summary()
    rows = kept(found.draws).rows
    assert [(row.shots, row.number) for row in rows] == [(1, 0), (1, 1), (2, 0), (2, 1)]
    assert [len(row.support) for row in rows] == [3, 3, 5, 5]
    # cyst: scores 1, 2, -0.2 against -1, 0.5: five of six pairs; rim: 2, 0.2 against -2, -1: all
    assert rows[0].figures["p1"] == pytest.approx((5 / 6 + 1) / 2)
    assert {name: rows[-1].figures[name] for name in found.extra} == pytest.approx(dict(found.extra))
    assert rows[0].figures["p1_left_out"] == 0


def test_a_category_nobody_shows_is_left_out_and_counted() -> None:
    method = KnownCategories((*NAMES, "halo"))
    bed = labelled()
    test = tuple(
        sample(f"y{i}", *one.categories, signs=(float(i), 1.0, 0.0), score=float(i)) for i, one in enumerate(bed.test)
    )
    rows = kept(evaluate(method, rows_of, TestBed(bed.pool, test), CATEGORIES, 1).draws).rows
    assert {row.figures["p1_left_out"] for row in rows} == {1.0}


def test_what_is_saved_is_found_again(tmp_path: Path) -> None:
    found = evaluate(NearestValue(), rows_of, images(), DETECTION, 1)
    draws = kept(found.draws)
    save_draws(draws, tmp_path, "federated")
    lines = json.loads((tmp_path / "draws" / "federated.json").read_text(encoding="utf-8"))
    assert [line["image_auroc"] for line in lines] == [row.figures["image_auroc"] for row in draws.rows]
    loaded = load_resamples(tmp_path / "draws" / "federated.safetensors")
    assert set(loaded) == {("brain", 2, "image_auroc"), ("brain", 4, "image_auroc")}
    low, high = percentiles(loaded["brain", 4, "image_auroc"]) or (1, 0)
    assert low <= found.headline <= high
    supports = (tmp_path / "draws" / "supports.csv").read_text(encoding="utf-8").splitlines()
    assert supports[0] == "task,shots,draw,id,name"
    assert len(supports) == 1 + 3 * 2 + 3 * 4
    row = draws.rows[0]
    assert supports[1].split(",") == ["brain", "2", "0", *row.support[0]]


def test_equal_images_are_resampled_alike_whatever_the_seed() -> None:
    """Else a mean over seeds that share their test images would look surer than it is."""
    one, other = (kept(evaluate(KnownScores(), rows_of, images(), DETECTION, seed).draws).resamples for seed in (1, 2))
    assert one == other
