import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fed_fsad.data.features import Features
from fed_fsad.data.samples import Sample
from fed_fsad.evaluation.bed import TestBed
from fed_fsad.evaluation.gallery import outline, overlay, save_details, save_resamples
from fed_fsad.evaluation.protocols import evaluate
from fed_fsad.evaluation.results import Details
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.methods.method import Scores, SupportBank
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


def test_saved_details_are_what_the_report_reads(tmp_path: Path) -> None:
    save_details(details_of(), tmp_path)
    read = json.loads((tmp_path / "details.json").read_text())
    assert set(read) == {"roc", "precision_recall", "operating", "scores", "gallery", "signs", "thresholds"}
    assert set(read["roc"]["4"]) == {"task", "label", "fpr", "tpr"}
    assert set(read["precision_recall"]["4"]) == {"task", "label", "recall", "precision", "prevalence"}
    assert set(read["operating"]["brain"]) == {"curve", "threshold", "specificity", "normals"}
    scored = {"name", "task", "label", "categories", "score", "category_scores"}
    assert set(read["scores"][0]) == scored
    for item in read["gallery"]:
        assert set(item) == scored | {"image", "mask", "map", "kind", "evidence"}
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


def test_evidence_is_of_the_loudest_category_and_of_those_shown() -> None:
    shown = (sample("n", signs=(0.0, 1.0)), sample("s", "spot", signs=(1.0, 2.0)), sample("r", "rim", signs=(0.5, 3.0)))
    found = evaluate(WithSigns(("spot", "rim")), rows_of, TestBed(POOL, shown), SETTINGS, 0, details=True).details
    assert found is not None
    why = {item.score.name: item.evidence for item in found.gallery}
    assert [one.category for one in why["s"]] == ["rim", "spot"]
    assert [one.category for one in why["r"]] == ["rim"]
    assert why["r"][0].score == 3.0
    assert why["r"][0].signs == (("rim rim", 3.5), ("rim haze", 2.5))
    assert dict(found.scores[1].category_scores) == {"spot": 1.0, "rim": 2.0}
    assert (why["r"][0].supports, why["r"][0].probability) == (0.0, None)
    assert all(not item.evidence for item in details_of().gallery)
    assert found.thresholds == details_of().thresholds == {}


def test_probabilities_thresholds_and_what_the_supports_added_stand_beside_the_signs(tmp_path: Path) -> None:
    class Certain(WithSigns):
        """Half a unit of every score comes from elsewhere than the signs."""

        def sign_evidence(self, features: Features, bank: SupportBank) -> list[dict[str, dict[str, float]]]:
            return [{name: {"rim": float(x) - 0.5} for name, x in zip(self.names, row, strict=True)}
                    for row in features["signs"]]  # fmt: skip

        def probabilities(self, scores: Scores, bank: SupportBank) -> torch.Tensor:
            assert scores.categories is not None
            return torch.sigmoid(scores.categories - 1)

        def thresholds(self, bank: SupportBank) -> torch.Tensor:
            return torch.tensor([1.0, 2.0])

    shown = (sample("n", signs=(0.0, 1.0)), sample("s", "spot", signs=(1.0, 3.0)))
    found = evaluate(Certain(("spot", "rim")), rows_of, TestBed(POOL, shown), SETTINGS, 0, details=True).details
    assert found is not None
    assert found.thresholds == {"brain": {"spot": 1.0, "rim": 2.0}}
    why = {item.score.name: item.evidence for item in found.gallery}["s"]
    assert [(one.category, one.supports) for one in why] == [("rim", 0.5), ("spot", 0.5)]
    assert [one.probability for one in why] == pytest.approx([1 / (1 + math.exp(-2)), 0.5])
    save_details(found, tmp_path)
    read = json.loads((tmp_path / "details.json").read_text())
    assert read["thresholds"] == {"brain": {"spot": 1.0, "rim": 2.0}}
    assert read["gallery"][0]["evidence"][0]["supports"] == 0.5


def test_resamples_are_kept_by_detector(tmp_path: Path) -> None:
    found = evaluate(KnownScores(), rows_of, TestBed(POOL, TEST), SETTINGS, 0)
    save_resamples(found.resamples, tmp_path, "local-st-anna")
    save_resamples(None, tmp_path, "undefined")
    assert [path.name for path in (tmp_path / "resamples").iterdir()] == ["local-st-anna.json"]
    read = json.loads((tmp_path / "resamples" / "local-st-anna.json").read_text())
    assert found.interval == pytest.approx(np.percentile(read, [2.5, 97.5]), abs=1e-6)


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
