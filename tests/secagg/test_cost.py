"""What secure aggregation costs: the table of docs/secure-aggregation.md is measured here."""

import re
from pathlib import Path

import pytest
import torch

from fed_fsad.secagg import wire
from tests.secagg.hospitals import federation, steps
from tests.server.fakes import FakeScorer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "secure-aggregation.md"
NUMBERS = 10_000


@pytest.mark.parametrize("sites", [4, 16])
def test_the_bytes_of_the_page_are_those_of_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sites: int
) -> None:
    tensors = {"d24fad": {"affine/a": torch.zeros(NUMBERS)}}
    monkeypatch.setattr(FakeScorer, "initial", lambda self: dict(tensors))
    made = federation(tmp_path, monkeypatch, steps(sites))
    made.coordinator.train()
    asked = [message for site, _, message in made.network.asked if site == "a"]
    assert len(asked) == 4
    line = next(line for line in made.lines("site") if line["site"] == "a")
    known = sum(wire.bytes_of(message.content) for message in asked)
    assert line["bytes_down"] == known
    beside = [line[key] - 4 * NUMBERS for key in ("bytes_down", "bytes_up")]
    row = re.search(rf"^\| {sites} \| 4 \| (\d+) \| (\d+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert row, f"put into docs/secure-aggregation.md: | {sites} | 4 | {beside[0]} | {beside[1]} |"
    assert [int(number) for number in row.groups()] == beside
