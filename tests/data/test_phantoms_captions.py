"""Captions say only what the sign list knows, in many wordings."""

import re

import numpy as np
import pytest

from fed_fsad.data.phantoms import ORGANS, caption, phantom
from fed_fsad.data.signs import load_signs
from fed_fsad.errors import ConfigError
from fed_fsad.seeds import numpy_stream

BOOK = load_signs("phantoms")
CASES = [(organ.task, kinds) for organ in ORGANS.values() for kinds in [(), *((kind,) for kind in organ.kinds)]]
FRAME = {"a", "an", "normal", "abnormal", "with", "no", "abnormality", "image", "showing", "consistent", "and", ""}


def many(task: str, kinds: tuple[str, ...], count: int = 60) -> list[str]:
    sample, rng = phantom(task, kinds, 0, 1, 0), numpy_stream(3, "captions")
    return [caption(sample, BOOK, rng) for _ in range(count)]


@pytest.mark.parametrize(("task", "kinds"), CASES)
def test_captions_hold_only_modality_own_signs_and_names(task: str, kinds: tuple[str, ...]) -> None:
    signs = BOOK[task].categories[kinds[0]] if kinds else BOOK[task].normal
    for text in many(task, kinds):
        assert BOOK[task].modality in text
        rest = text
        for known in sorted([BOOK[task].modality, *signs, *kinds], key=len, reverse=True):
            rest = rest.replace(known, " ")
        assert set(re.split(r"[\s,:]+", rest)) <= FRAME, text


@pytest.mark.parametrize(("task", "kinds"), CASES)
def test_every_sign_appears_but_not_always_and_the_name_only_sometimes(task: str, kinds: tuple[str, ...]) -> None:
    texts = many(task, kinds, 300)
    for sign in BOOK[task].categories[kinds[0]] if kinds else BOOK[task].normal:
        assert 0 < sum(sign in text for text in texts) < len(texts)
    if kinds:
        assert 0.2 < np.mean([kinds[0] in text for text in texts]) < 0.9


def test_order_of_signs_varies() -> None:
    first, second = BOOK["oct"].categories["drusen"][:2]
    order = {t.index(first) < t.index(second) for t in many("oct", ("drusen",), 300) if first in t and second in t}
    assert order == {True, False}


def test_two_anomalies_are_both_told() -> None:
    texts = many("brain_mri", ("microbleeds", "hydrocephalus"), 80)
    assert any("microbleeds and hydrocephalus" in text for text in texts)
    told = [t for t in texts if "showing" in t]
    assert told
    for kind in ("microbleeds", "hydrocephalus"):
        assert all(any(sign in text for sign in BOOK["brain_mri"].categories[kind]) for text in told)


def test_same_stream_same_caption() -> None:
    assert many("fundus", ()) == many("fundus", ())
    assert len(set(many("fundus", ()))) > 20


def test_foreign_sign_list_is_refused() -> None:
    with pytest.raises(ConfigError, match="knows no task 'fundus'"):
        caption(phantom("fundus", (), 0, 0, 0), load_signs("retina"), numpy_stream(0))
