"""`fed-fsad benchmark` on the command line: what a user writes becomes settings, what cannot be is one sentence."""

import re
from pathlib import Path

import pytest

from simulations.benchmark.plan import BenchmarkSettings
from tests.cli.test_cli import called


@pytest.fixture
def caught(monkeypatch: pytest.MonkeyPatch) -> list[BenchmarkSettings]:
    """The settings a command asks for; nothing is run."""
    found: list[BenchmarkSettings] = []

    def instead(settings: BenchmarkSettings, *args: object) -> str:
        found.append(settings)
        return "THE TABLE"

    monkeypatch.setattr("simulations.benchmark.run.benchmark", instead)
    return found


def test_the_defaults_are_five_seeds_ten_draws_and_every_k(
    caught: list[BenchmarkSettings], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = called(monkeypatch, capsys, "benchmark", "d24fad", "--phantoms", "all", "--out", "x")
    assert (code, err) == (0, "")
    assert "THE TABLE" in out
    assert "x/rows.csv" in out
    (found,) = caught
    assert (found.shots, found.seeds, found.draws, found.hospitals) == ((1, 2, 4, 8, 16), 5, 10, 1)
    assert len(found.phantoms) == 6
    assert found.arms == ("pooled", "local", "federated")


def test_folders_categories_and_ablations_arrive(
    caught: list[BenchmarkSettings],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    words = ("--task", f"retina={tmp_path}", "--held-out", "grade4", "--held-out", "grade 3", "--ablations", "no_signs")
    assert called(monkeypatch, capsys, "benchmark", "sdmad", *words, "--out", "x", "--train", "9")[0] == 0
    (found,) = caught
    assert (found.tasks, found.held_out, found.ablations) == (
        {"retina": tmp_path.resolve()},
        ("grade4", "grade 3"),
        ("no_signs",),
    )
    assert (found.method, found.hospitals, found.train, found.test) == ("sdmad", 2, 9, None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("d24fad", "--phantoms", "oct"), "leaving one task out needs two tasks at least; name another"),
        (("d24fad",), "name either data sets, --task NAME=DIR, or phantom organs"),
        (("d24fad", "--task", "retina"), "--task retina: write it as NAME=DIR"),
        (("d24fad", "--phantoms", "oct,fundus", "--shots", "two"), "shots.0: .*it is 'two'; change it"),
        (("d24fad", "--phantoms", "oct,fundus", "--arms", "loca"), "arms.0: .*'loca'; change it"),
        (("d24fad", "--task", "a=/no/where", "--task", "b=/no/where"), "--task a=/no/where: there is no such folder"),
        (("sdmad", "--phantoms", "oct", "--ablations", "no_sings"), "ablations.0: .*'no_sings'; change it"),
        (("sdmad", "--phantoms", "oct", "--set", "arms=[]"), "--set arms=.*: a benchmark varies this itself"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    words: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = called(monkeypatch, capsys, "benchmark", *words, "--out", str(tmp_path / "out"))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert re.search(said, err), err
    assert not (tmp_path / "out").exists()


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*args: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr("simulations.benchmark.run.benchmark", interrupted)
    code, _, err = called(monkeypatch, capsys, "benchmark", "d24fad", "--phantoms", "all", "--out", "some/where")
    assert (code, err) == (130, "stopped; continue some/where with --resume auto\n")
