"""Several anomalies in one image: what the protocols make of them, with a scorer that knows everything."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from fed_fsad.data.features import Rows
from fed_fsad.data.phantoms import ORGANS, phantom_set
from fed_fsad.data.samples import Sample
from fed_fsad.evaluation.bed import TestBed
from fed_fsad.evaluation.label_table import tabulate
from fed_fsad.evaluation.protocols import evaluate
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.evaluation.trials import Draw, Trial
from fed_fsad.methods.method import Scores
from tests.evaluation.fakes import KnownCategories, sample

NAMES = ORGANS["brain_mri"].kinds
PROTOCOLS = ("p1", "p2", "p3")


def drawn(seed: int, normal: int, abnormal: int) -> tuple[Sample, ...]:
    return tuple(phantom_set("brain_mri", normal, abnormal, 0, seed, multiple=0.5))


def knowing(samples: Sequence[Sample]) -> Rows:
    """Every category's score is 1 where the image shows it and -1 elsewhere."""
    signs = torch.tensor([[1.0 if name in one.categories else -1.0 for name in NAMES] for one in samples])
    score = torch.tensor([float(not one.is_normal) for one in samples])
    return Rows({"signs": signs, "score": score, "value": score[:, None]}, tuple(samples))


def test_who_knows_everything_is_right_about_everything() -> None:
    bed = TestBed(drawn(1, 6, 20), drawn(2, 8, 20))
    assert sum(len(one.categories) > 1 for one in bed.test) == 10
    found = evaluate(KnownCategories(NAMES), knowing, bed, EvaluationSettings(shots=(2,), draws=2), 0)
    assert {key: found.image_auroc[key] for key in PROTOCOLS} == dict.fromkeys(PROTOCOLS, 1.0)
    assert {key: found.extra[key] for key in ("map", "macro_f1", "micro_f1", "exact_match", "hamming")} == {
        "map": 1.0,
        "macro_f1": 1.0,
        "micro_f1": 1.0,
        "exact_match": 1.0,
        "hamming": 0.0,
    }


def test_naming_one_anomaly_of_each_image_is_not_enough() -> None:
    def first_only(samples: Sequence[Sample]) -> Rows:
        told = knowing([replace(one, categories=one.categories[:1]) for one in samples])
        return Rows(told.features, tuple(samples))

    found = evaluate(
        KnownCategories(NAMES), first_only, TestBed(drawn(1, 6, 20), drawn(2, 8, 20)),
        EvaluationSettings(shots=(2,), draws=1), 0,
    )  # fmt: skip
    assert found.extra["exact_match"] == pytest.approx(18 / 28)
    assert found.extra["map"] < 0.95
    assert found.image_auroc["p2"] < 1


def test_an_image_is_a_negative_of_no_category_that_it_shows() -> None:
    images = (*drawn(3, 4, 20), sample("all", *NAMES, task="brain_mri"))
    draw = Draw("brain_mri", 1, 0, (), False)
    scores = Scores(torch.zeros(len(images)), None, torch.zeros(len(images), len(NAMES)), NAMES)
    table = tabulate(Trial(draw, images, scores), ())
    for protocol in PROTOCOLS:
        labels = table.labels(protocol)
        for place, image in enumerate(images):
            for row, name in enumerate(table.names):
                assert (labels[row, place] == 1) == (name in image.categories), (protocol, image.categories, name)
