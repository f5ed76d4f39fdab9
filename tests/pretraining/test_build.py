"""The whole pipeline, a few steps long."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fed_fsad.assets import SUMS, read_sums
from fed_fsad.methods.d24fad.resnet import SmallResNet
from pretraining.build import make_clip, make_teacher
from pretraining.card import Card, publish, read_card
from pretraining.figures import deviations
from pretraining.training import Plan

CURVE = [{"step": 2.0, "cpu_seconds": 1.0, "loss": 0.5}]


def _card(figure: float) -> Card:
    plan = Plan("x", 0, 2, 0.1, 0.0, 1)
    return Card("Title", "Text.", "command", plan, 7, {"Heading": {"row": {"column": figure}}}, CURVE)


def test_three_steps_of_the_teacher_twice_give_the_same_file(tmp_path: Path) -> None:
    digests = [make_teacher(0, 3, 2, tmp_path / run, tmp_path / run, None) for run in ("one", "two")]
    assert digests[0] == digests[1]
    assert (tmp_path / "one/teacher/weights.safetensors").stat().st_size < 2_000_000
    network = SmallResNet()
    network.load_state_dict(load_file(tmp_path / "one/teacher/weights.safetensors"))
    card = read_card(tmp_path / "one/teacher/card.md")
    assert card["sha256"] == digests[0] == read_sums(tmp_path / "one" / SUMS)["teacher/weights.safetensors"]
    assert card["plan"]["steps"] == 3
    assert set(card["figures"]["Reported phantom organ, never looked at"]) == {"brain_mri"}
    assert "brain_mri" not in card["figures"]["Phantom organs that choices looked at"]


def test_three_steps_of_clip_twice_give_the_same_files(tmp_path: Path) -> None:
    digests = [make_clip(0, 3, 1, tmp_path / run, tmp_path / run, 40) for run in ("one", "two")]
    assert digests[0] == digests[1]
    for file in ("bpe.txt.gz", "model.json"):
        assert (tmp_path / "one/clip" / file).read_bytes() == (tmp_path / "two/clip" / file).read_bytes()
    card = read_card(tmp_path / "one/clip/card.md")
    assert set(card["figures"]) == {"Seen kinds, zero-shot", "Held-out kinds, zero-shot"}


def test_publishing_keeps_the_other_sums_and_stores_half_precision(tmp_path: Path) -> None:
    weights = {"b": torch.tensor([1.0, 2.0]), "count": torch.tensor(3)}
    first = publish(tmp_path, "first", weights, _card(0.5))
    second = publish(tmp_path, "second", {"a": torch.ones(2)}, _card(0.5))
    assert read_sums(tmp_path / SUMS) == {"first/weights.safetensors": first, "second/weights.safetensors": second}
    stored = load_file(tmp_path / "first/weights.safetensors")
    assert stored["b"].dtype == torch.float16
    assert stored["count"].dtype == torch.int64
    assert not list(tmp_path.rglob("*.partial"))


def test_a_card_reads_back_what_it_states(tmp_path: Path) -> None:
    digest = publish(tmp_path, "x", {"a": torch.ones(2)}, _card(0.12345))
    head = read_card(tmp_path / "x/card.md")
    assert head["sha256"] == digest
    assert head["images"] == 7
    assert head["figures"] == {"Heading": {"row": {"column": 0.123}}}
    assert "| row | 0.123 |" in (tmp_path / "x/card.md").read_text()


@pytest.mark.parametrize(
    ("stated", "found", "off"),
    [(0.8, 0.803, 0), (0.8, 0.81, 1), (0.8, 0.79, 1), (0.8, float("nan"), 1)],
)
def test_deviations_are_figures_beyond_the_tolerance(stated: float, found: float, off: int) -> None:
    cards = {"x": {"figures": {"Heading": {"row": {"column": stated}}}}}
    result = deviations(cards, {"x": {"Heading": {"row": {"column": found}}}}, 0.005)
    assert len(result) == off
    assert set(result) <= {"x > Heading > row > column"}
