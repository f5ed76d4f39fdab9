"""The command line: what it asks of the pipeline, and what it says to a wrong word."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import pretraining.__main__ as commands
from fed_fsad.errors import ConfigError
from pretraining.figures import CARD_SEEDS
from pretraining.presets import CLIP, DISTILLED, STUDENT, TEACHER, Amount, Preset, Run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the commands would have done."""
    calls: list[Any] = []
    for name in ("make_teacher", "make_distilled", "make_student", "make_clip"):
        monkeypatch.setattr(commands, name, lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(commands, "build_teacher", lambda settings, _: settings)
    return calls


def _invoke(*words: str) -> None:
    CliRunner().invoke(commands.app, words, catch_exceptions=False)


def test_presets_say_how_much_and_options_change_it(asked: list[Any]) -> None:
    _invoke("teacher", "--preset", "gpu")
    _invoke("distil", "--steps", "7", "--images", "9", "--resume")
    _invoke("clip", "--seed", "3")
    _invoke("student", "--images", "64")
    runs = [call[0] for call in asked]
    assert [run.amount for run in runs] == [
        TEACHER[Preset.GPU],
        Amount(9, 7, DISTILLED[Preset.CPU].batch),
        CLIP[Preset.CPU],
        Amount(64, STUDENT[Preset.CPU].steps, STUDENT[Preset.CPU].batch),
    ]
    assert [run.resume for run in runs] == [False, True, False, False]
    assert [run.seed for run in runs] == [0, 0, 3, 0]


def test_the_large_network_is_named_by_weights_and_variant(asked: list[Any]) -> None:
    _invoke("distil", "--reference", "r50.safetensors", "--variant", "v1")
    _, large, source, begin, measures = asked[0]
    assert source == "--reference r50.safetensors --variant v1"
    assert (large.name, large.weights, large.variant) == ("resnet50", "r50.safetensors", "v1")
    assert begin is None
    assert measures.large is large
    assert measures.seeds == CARD_SEEDS
    _invoke("teacher")
    assert asked[1][1].large is None


@pytest.mark.usefixtures("asked")
def test_an_unknown_variant_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"--variant v9 is not known; choose v1\.5 or v1"):
        _invoke("distil", "--variant", "v9")


def test_a_run_says_its_options_and_nothing_it_does_not_use(tmp_path: Path) -> None:
    assert Run(2, Amount(0, 5, 32), tmp_path).options == "--seed 2 --steps 5"
    assert Run(2, Amount(40, 5, 32), tmp_path).options == "--seed 2 --images 40 --steps 5"
