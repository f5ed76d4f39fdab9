"""`fed-fsad study` on the command line: what a user writes arrives, what cannot be is one sentence and a code."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from fed_fsad.errors import FederationError
from tests.cli.test_cli import called
from tests.simulations.test_study import written


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the command asks for; nothing is run."""
    found: list[tuple[Any, ...]] = []
    monkeypatch.setattr("simulations.study.run.study", lambda *args: found.append(args))
    return found


def test_every_option_arrives(
    caught: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = written(tmp_path, grid={"federation.rounds": [1, 2]})
    words = ("--jobs", "3", "--memory", "5", "--only", "a*", "--only", "b*", "--set", "evaluation.draws=1")
    assert called(monkeypatch, capsys, "study", str(path), "--out", str(tmp_path / "o"), *words)[0] == 0
    ((settings, origin, out, limits, only, _),) = caught
    assert (settings.overrides, origin, out) == (("evaluation.draws=1",), str(path), tmp_path / "o")
    assert (limits.jobs, limits.memory, only) == (3, 5e9, ["a*", "b*"])


def test_another_base_and_a_folder_take_the_place_of_the_study_s(
    caught: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path, other = written(tmp_path, base="nowhere.yaml", grid={"federation.rounds": [1, 2]}), tmp_path / "other.yaml"
    other.write_text("name: other\n", encoding="utf-8")
    words = ("--out", str(tmp_path / "o"), "--base", str(other), "--data", "a: b")
    assert called(monkeypatch, capsys, "study", str(path), *words)[0] == 0
    settings = caught[0][0]
    assert settings.bases == {"base": {"name": "other"}}
    assert settings.overrides == ('data.root="a: b"',)


def test_by_default_all_cores_and_most_of_the_memory(
    caught: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert called(monkeypatch, capsys, "study", str(written(tmp_path)), "--out", str(tmp_path / "o"))[0] == 0
    limits = caught[0][3]
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert limits.jobs == len(os.sched_getaffinity(0))
    assert 0.7 * whole < limits.memory < 0.9 * whole


def test_what_cannot_be_is_one_sentence_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = written(tmp_path, grid={"federation.roundz": [1]})
    code, out, err = called(monkeypatch, capsys, "study", str(path), "--out", str(tmp_path / "o"))
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: .*study.yaml, cell roundz-1_seed0: unknown key .*; did you mean 'rounds'\?\n", err)
    assert not (tmp_path / "o").exists()


def test_failed_cells_make_the_code_non_zero_and_ctrl_c_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    raised: list[BaseException] = [FederationError("1 of 2 runs failed"), KeyboardInterrupt()]

    def instead(*args: object) -> None:
        raise raised.pop(0)

    monkeypatch.setattr("simulations.study.run.study", instead)
    words = ("study", str(written(tmp_path)), "--out", "some/where")
    code, _, err = called(monkeypatch, capsys, *words)
    assert (code, err) == (1, "error: 1 of 2 runs failed\n")
    code, _, err = called(monkeypatch, capsys, *words)
    assert (code, err) == (130, "stopped; the same command goes on in some/where\n")
