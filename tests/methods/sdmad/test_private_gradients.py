"""Every trainable part of SD-MAD under privacy: gradients per image are the slow ones, one image moves the sum by C.

An image is a record, whatever the towers make of it: tokens, signs and classes are none.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fed_fsad.data.features import Rows
from fed_fsad.methods.method import part_of
from fed_fsad.methods.sdmad.detector import SdMad
from fed_fsad.methods.sdmad.vocabulary import build_vocabulary
from fed_fsad.privacy.gradients import clipped_sum, record_gradients
from fed_fsad.privacy.records import Records, private_episode
from tests.methods.sdmad.conftest import BOOK
from tests.privacy.slow import clipped, flat_sum, largest_shift, slow_gradients

Make = Callable[..., SdMad]
MakeRows = Callable[..., Rows]
CASES: dict[str, dict[str, Any]] = {
    "context": {"trainable": ("context",)},
    "context per category": {"trainable": ("context",), "context": "per_category"},
    "context per modality": {"trainable": ("context",), "context": "per_modality"},
    "text adapters": {"trainable": ("text_adapters",)},
    "image adapters": {"trainable": ("image_adapters",)},
    "image adapters, multilevel": {"trainable": ("image_adapters",), "multilevel": True},
    "preset federated": {"preset": "federated"},
    "preset federated, multilevel": {"preset": "federated", "multilevel": True},
    "preset paper": {"preset": "paper"},
}
RECORDS = {
    "image": tuple((str(i),) for i in range(8)),
    "patient": (("0", "1"), ("2",), ("3", "4"), ("5", "6", "7")),
}
"""By unit; the third patient has images of two tasks."""
every = pytest.mark.parametrize("case", CASES)
units = pytest.mark.parametrize("unit", RECORDS)


def built(method: Make, case: str) -> SdMad:
    chosen = dict(CASES[case])
    return method(vocabulary=build_vocabulary([BOOK], chosen.get("context", "shared")), **chosen)


def parts_and_all(own: SdMad) -> list[list[str]]:
    names = list(own.trainable())
    parts = dict.fromkeys(map(part_of, names))
    return [names, *([name for name in names if part_of(name) == part] for part in parts if len(parts) > 1)]


@every
@units
def test_clipped_gradients_are_the_slow_ones(method: Make, rows: MakeRows, case: str, unit: str) -> None:
    own = built(method, case)
    site, records = rows(own), RECORDS[unit]
    for names in parts_and_all(own):
        slow = slow_gradients(own, site, records, names)
        assert all(gradient.norm() > 0 for gradient in slow)
        norms = sorted(float(gradient.norm()) for gradient in slow)
        clip_norm = norms[len(norms) // 2]  # shortens some, spares others
        found = flat_sum(own, private_episode(site, records, 0), clip_norm, names)
        assert (found - clipped(slow, clip_norm)).norm() <= 1e-6 * sum(norms), names


@every
def test_removing_an_image_shifts_the_sum_by_at_most_the_clip_norm(method: Make, rows: MakeRows, case: str) -> None:
    own = built(method, case)
    site, names = rows(own), list(own.trainable())
    norms = [float(gradient.norm()) for gradient in slow_gradients(own, site, RECORDS["image"], names)]
    shift = largest_shift(own, site, RECORDS["image"], min(norms) / 2, names)
    assert 0.999 < shift <= 1.0 + 1e-5


@every
def test_records_are_images_neither_tokens_nor_signs_nor_classes(method: Make, rows: MakeRows, case: str) -> None:
    own = built(method, case)
    found = clipped_sum(own, private_episode(rows(own), RECORDS["image"], 0), 1e-9, list(own.trainable()))
    assert (found.records, found.clipped, found.invalid) == (8, 8, 0)


@units
def test_an_image_that_is_not_finite_counts_as_zero_and_silences_no_other(
    method: Make, rows: MakeRows, unit: str
) -> None:
    own = method()
    site, names, records = rows(own), list(own.trainable()), RECORDS[unit]
    for features in site.features.values():
        features[3] = float("nan")
    healthy: Records = tuple(record for record in records if "3" not in record)
    found = clipped_sum(own, private_episode(site, records, 0), 1.0, names)
    expected = clipped_sum(own, private_episode(rows(own), healthy, 0), 1.0, names)
    assert (found.records, found.invalid) == (len(records), 1)
    assert all(torch.equal(found.total[name], expected.total[name]) for name in names)


def test_texts_run_through_the_tower_once_for_all_images_of_a_task(
    method: Make, rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = method()
    asked: list[list[str]] = []
    encode = own._network.sign_embeddings

    def watched(tasks: list[object]) -> object:
        asked.append([signs.task for signs in tasks])  # type: ignore[attr-defined]
        return encode(tasks)  # type: ignore[arg-type]

    monkeypatch.setattr(own._network, "sign_embeddings", watched)
    clipped_sum(own, private_episode(rows(own), RECORDS["image"], 0), 1.0, list(own.trainable()))
    assert asked == [["brain"], ["chest"]]


@every
@units
def test_the_vectorised_pull_back_clips_like_the_loop(method: Make, rows: MakeRows, case: str, unit: str) -> None:
    own = built(method, case)
    parameters, episode = list(own.trainable().values()), private_episode(rows(own), RECORDS[unit], 0)
    loop, together = (list(record_gradients(own, episode, parameters, size)) for size in (1, 3))
    assert len(loop) == len(together) == len(RECORDS[unit])
    for one, other in zip(loop, together, strict=True):
        left, right = (torch.cat([g.flatten() for g in gradients]) for gradients in (one, other))
        assert (left - right).norm() <= 1e-5 * left.norm()


@every
def test_bits_depend_on_the_records_alone(method: Make, rows: MakeRows, case: str) -> None:
    """One graph per record: what else is in the batch, and how large it is, cannot reach a bit of a gradient."""
    own = built(method, case)
    site, names = rows(own), list(own.trainable())
    two = RECORDS["image"][:2]
    whole = clipped_sum(own, private_episode(site, two, 0), 1e9, names).total
    singly = [clipped_sum(own, private_episode(site, (record,), 0), 1e9, names).total for record in two]
    assert all(torch.equal(whole[name], singly[0][name] + singly[1][name]) for name in names)
