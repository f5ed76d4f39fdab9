import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_curve

from fed_fsad.data.samples import Sample
from fed_fsad.evaluation.bed import TestBed
from fed_fsad.evaluation.details import ROC_POINTS, curve
from fed_fsad.evaluation.gallery import outline, overlay, save_details
from fed_fsad.evaluation.protocols import evaluate
from fed_fsad.evaluation.results import Details
from fed_fsad.evaluation.settings import EvaluationSettings
from tests.evaluation.fakes import SIZE, KnownScores, WithSigns, rows_of, sample, source_of

SETTINGS = EvaluationSettings(shots=(2, 4), draws=2)
POOL = tuple(sample(f"p{i}") for i in range(5))
TEST = (
    *(sample(f"n{i}", score=i / 10, value=0.1 * i) for i in range(4)),
    *(sample(f"a{i}", "spot", score=0.25 + i / 10, lesion=3, value=0.5 + 0.1 * i) for i in range(5)),
)


def details_of(maps: bool = True, test: tuple[Sample, ...] = TEST) -> Details:
    found = evaluate(KnownScores(maps=maps), rows_of, TestBed(POOL, test), SETTINGS, 0, details=True)
    assert found.details is not None
    return found.details


def test_the_gallery_shows_best_median_worst_and_the_loudest_normal_image() -> None:
    kinds = {item.kind: item.score.name for item in details_of().gallery}
    assert kinds == {"best": "a4", "median": "a2", "worst": "a0", "false alarm": "n3"}


def test_one_abnormal_image_is_shown_once() -> None:
    kinds = [(item.kind, item.score.name) for item in details_of(test=TEST[:5]).gallery]
    assert kinds == [("best", "a0"), ("false alarm", "n3")]


def test_every_score_is_there() -> None:
    scores = details_of().scores
    assert [(one.name, one.label) for one in scores] == [(one.source.name, int(not one.is_normal)) for one in TEST]
    assert [one.score for one in scores] == pytest.approx([source_of(one).score for one in TEST])


def test_roc_per_k_and_per_task_and_category() -> None:
    assert set(details_of().roc) == {"2", "4"}
    liver = tuple(sample(f"l{i}", *(["spot"] if i > 4 else []), task="liver", score=float(i)) for i in range(9))
    found = evaluate(KnownScores(), rows_of, TestBed(POOL + liver[:4], TEST + liver[4:]), SETTINGS, 0, details=True)
    assert found.details is not None
    assert set(found.details.roc) == {"brain, 2", "brain, 4", "liver, 2", "liver, 4"}
    settings = SETTINGS.model_copy(update={"unseen_categories": ("rare",)})
    test = (sample("n", signs=(0.0, 1.0)), sample("s", "spot", signs=(1.0, 0.0)), sample("r", "rare", signs=(1.0, 0.0)))
    told = evaluate(WithSigns(("spot", "rare")), rows_of, TestBed(POOL, test), settings, 0, details=True).details
    assert told is not None
    assert told.roc["spot"].tpr[1] == 1.0
    assert told.roc["rare"].fpr[1] == 1.0
    assert told.signs["brain"]["spot"][0].sign == "spot rim"


def test_a_long_roc_curve_is_thinned_without_moving() -> None:
    stream = np.random.default_rng(0)
    labels = stream.random(6000) > 0.5
    scores = labels + stream.normal(size=6000)
    thin = curve(labels, scores)
    assert thin is not None
    assert 100 < len(thin.fpr) <= ROC_POINTS
    assert (thin.fpr[0], thin.tpr[0], thin.fpr[-1], thin.tpr[-1]) == (0, 0, 1, 1)
    fpr, tpr, _ = roc_curve(labels, scores)
    assert np.abs(np.interp(fpr, thin.fpr, thin.tpr) - tpr).max() < 0.02
    assert np.trapezoid(thin.tpr, thin.fpr) == pytest.approx(np.trapezoid(tpr, fpr), abs=1e-3)
    assert curve(np.ones(3, dtype=bool), np.arange(3.0)) is None


def test_saved_details_are_what_the_report_reads(tmp_path: Path) -> None:
    save_details(details_of(), tmp_path)
    read = json.loads((tmp_path / "details.json").read_text())
    assert set(read) == {"roc", "scores", "gallery", "signs"}
    assert set(read["roc"]["4"]) == {"fpr", "tpr"}
    assert set(read["scores"][0]) == {"name", "task", "label", "categories", "score"}
    for item in read["gallery"]:
        assert set(item) == {"image", "mask", "map", "name", "task", "label", "categories", "score", "kind"}
        assert (item["mask"] is None) == (item["kind"] == "false alarm")
        for key in ("image", "mask", "map"):
            if item[key] is not None:
                assert Image.open(tmp_path / item[key]).size == (SIZE, SIZE)
    first = np.asarray(Image.open(tmp_path / read["gallery"][0]["image"]))
    assert first[0, 0].tolist() == [round(0.9 * 255)] * 3


def test_undefined_reliability_is_null_and_missing_maps_too(tmp_path: Path) -> None:
    bed = TestBed(POOL, (sample("n", signs=(0.0,)), sample("s", "spot", signs=(1.0,))))
    found = evaluate(WithSigns(("spot",)), rows_of, bed, SETTINGS, 0, details=True)
    assert found.details is not None
    save_details(found.details, tmp_path)
    read = json.loads((tmp_path / "details.json").read_text())
    assert read["signs"] == {
        "brain": {
            "spot": [
                {"sign": "spot rim", "reliability": 0.9, "kept": True},
                {"sign": "spot haze", "reliability": None, "kept": False},
            ]
        }
    }
    assert all(item["map"] is None for item in read["gallery"])


def test_an_interrupted_save_leaves_the_earlier_one_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_details(details_of(), tmp_path)
    before = (tmp_path / "details.json").read_text()

    def fail(*_: object, **__: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "dumps", fail)
    with pytest.raises(KeyboardInterrupt):
        save_details(details_of(maps=False, test=TEST[2:7]), tmp_path)
    assert (tmp_path / "details.json").read_text() == before
    assert all((tmp_path / item["image"]).exists() for item in json.loads(before)["gallery"])


def test_pictures_of_an_earlier_save_go(tmp_path: Path) -> None:
    save_details(details_of(), tmp_path)
    save_details(details_of(maps=False, test=TEST[2:7]), tmp_path)
    read = json.loads((tmp_path / "details.json").read_text())
    named = {item[key] for item in read["gallery"] for key in ("image", "mask", "map")} - {None}
    assert {f"gallery/{path.name}" for path in (tmp_path / "gallery").iterdir()} == named


def test_outline_marks_the_rim_and_nothing_else() -> None:
    mask = np.zeros((5, 5), dtype=bool)
    mask[1:4, 1:4] = True
    picture = outline(np.full((3, 5, 5), 0.5, dtype=np.float32), mask)
    changed = (picture != 128).any(axis=2)
    rim = mask.copy()
    rim[2, 2] = False
    assert (changed == rim).all()


def test_overlay_brightens_with_the_map() -> None:
    heat = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    picture = overlay(np.full((3, 4, 4), 0.5, dtype=np.float32), heat, 0, 1)
    brightness = picture.astype(int).sum(axis=2).ravel()
    assert (np.diff(brightness) > 0).all()
    dark = overlay(np.full((3, 4, 4), 0.5, dtype=np.float32), heat, 0, 10)
    assert dark.sum() < picture.sum()
