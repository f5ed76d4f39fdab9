"""What a federation is compared with takes as many steps as the federation, and is trained once."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fed_fsad.config import parse_config
from fed_fsad.methods.training import TrainingLog
from fed_fsad.progress import PlainProgress
from fed_fsad.rundir import RunDir
from simulations.arms import run_arms

TEXT = """
name: tiny
data: {kind: phantoms}
hospitals:
  - {name: north, holds: {organs: [oct], normal: 6, abnormal: 0}}
  - {name: south, holds: {organs: [oct], normal: 7, abnormal: 0}}
  - {name: empty, holds: {organs: [fundus], normal: 2, abnormal: 0}}
methods: {d24fad: {teacher: {name: random}, image_size: 64, local_steps: 5}}
federation: {rounds: 2}
"""


class FakeScorer:
    """Finds every model equally good."""

    def __init__(self, *args: object) -> None:
        pass

    def score(self, name: str, method: object, event: dict[str, Any]) -> dict[str, Any]:
        return {**event, "method": name, "image_auroc": {}, "headline": 0.5}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int]]:
    """Steps taken, by (the stream's owner, images)."""
    taken: Counter[tuple[str, int]] = Counter()

    def counted(method: object, settings: object, rows: Any, *, stream: Any, steps: int, **_: object) -> TrainingLog:
        taken[stream[1], len(rows)] += steps
        return TrainingLog(0.0, {})

    monkeypatch.setattr("simulations.arms.train", counted)
    monkeypatch.setattr("simulations.arms.Scorer", FakeScorer)
    return taken


@pytest.mark.parametrize(("participants", "sites"), [("null", 3), ("2", 2)])
def test_pooled_takes_the_steps_of_all_who_take_part_and_local_of_one(
    tmp_path: Path, steps: Counter[tuple[str, int]], participants: str, sites: int
) -> None:
    config = parse_config(TEXT, "tiny.yaml", [f"federation.participants={participants}"])
    run_arms(config, RunDir.create(tmp_path, config), PlainProgress())
    assert steps == {("pooled/pooled", 15): 2 * 5 * sites, ("local/north", 6): 2 * 5, ("local/south", 7): 2 * 5}


def test_an_arm_that_was_trained_before_a_stop_is_not_trained_again(
    tmp_path: Path, steps: Counter[tuple[str, int]]
) -> None:
    config = parse_config(TEXT, "tiny.yaml")
    run = RunDir.create(tmp_path, config)
    run.log({"kind": "arm", "arm": "pooled", "site": None, "method": "d24fad", "headline": 0.9})
    run_arms(config, run, PlainProgress())
    run_arms(config, run, PlainProgress())
    assert steps == {("local/north", 6): 2 * 5, ("local/south", 7): 2 * 5}
    arms = [(line["arm"], line["site"]) for line in run.events()]
    assert arms == [("pooled", None), ("local", "north"), ("local", "south"), ("local", "empty")]


def test_no_arms_are_trained_when_none_are_asked_for(tmp_path: Path, steps: Counter[tuple[str, int]]) -> None:
    config = parse_config(TEXT, "tiny.yaml", ["arms=[]"])
    run_arms(config, RunDir.create(tmp_path, config), PlainProgress())
    assert steps == {}
