"""`fed-fsad privacy`: a plan, an account and an explanation that a statistician can check."""

from pathlib import Path

import pytest

from fed_fsad.config import load_config
from fed_fsad.privacy.guarantees import NONE, NOTHING_LEFT, SIDE_BY_SIDE, TO_THE_SERVER
from fed_fsad.rundir import RunDir
from tests.cli.test_cli import DEMO, _wide_plain_terminal, called
from tests.privacy.test_account import begin, pay

__all__ = ["_wide_plain_terminal"]


def test_a_plan_says_the_third_figure_and_what_each_part_loses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--images", "64", "--epsilon", "8", "--rounds", "6", "--per-round", "2"]
    code, out, _ = called(monkeypatch, capsys, "privacy", "plan", *options)
    assert code == 0
    assert "ε = 8 at δ = 1e-05 for 6 rounds with 2 noisy full batches each" in out
    assert "noise multiplier σ = 2.079" in out, "docs/privacy.md says the same of twelve releases"
    assert "64 privacy records" in out
    assert {line.split()[0] for line in out.splitlines()} >= {"context", "text_adapters", "image_adapters", "all"}


def test_supports_and_patients_make_fewer_records(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--method", "d24fad", "--images", "64", "--patients", "32", "--sigma", "2", "--rounds", "6"]
    assert "10 privacy records" in called(monkeypatch, capsys, "privacy", "plan", *options)[1]
    options[3:6] = ["2", "--sigma", "2"]
    code, _, err = called(monkeypatch, capsys, "privacy", "plan", *options)
    assert code == 2
    assert "2 images make no privacy record of 3; add images" in err


def test_impossible_plans_are_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for options, said in (
        (["--epsilon", "8"], "a plan needs two of epsilon, sigma and rounds"),
        (["--epsilon", "8", "--rounds", "2", "--delta", "0.1"], "delta 0.1 is not below 1 / 64 images"),
        (["--epsilon", "8", "--rounds", "2", "--method", "sdmda"], "there is no method 'sdmda'"),
    ):
        code, _, err = called(monkeypatch, capsys, "privacy", "plan", "--images", "64", *options)
        assert (code, said in err) == (2, True), err


def test_all_ledgers_of_a_site_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, secure in (("mri", True), ("ct", False)):
        with begin(tmp_path / name) as ledger:
            pay(ledger, "run-1", 1, secure=secure)
    code, out, _ = called(monkeypatch, capsys, "privacy", "spent", str(tmp_path / "mri"), str(tmp_path / "ct"))
    assert code == 0
    assert out.count("unit patient") == 2
    assert out.count("2 releases had seeded noise") == 1
    assert "sum of their ε" in out
    assert called(monkeypatch, capsys, "privacy", "spent", str(tmp_path))[0] == 1


def test_a_run_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunDir.create(tmp_path / "run", load_config(Path(DEMO)))
    run.log({"kind": "site", "site": "riverside", "status": "ok", "bytes_up": 9, "claim": None})
    run.log({"kind": "site", "site": "hillcrest", "status": "ok", "bytes_up": 9, "claim": "Image-level [privacy]."})
    code, out, _ = called(monkeypatch, capsys, "privacy", "explain", str(run.path))
    assert code == 0
    said = [NONE, NOTHING_LEFT, "Image-level [privacy].", NOTHING_LEFT]
    names = ["riverside", "st-anna", "hillcrest", "lakeside"]
    assert out.splitlines() == [f"{name}: {text}" for name, text in zip(names, said, strict=True)]
    run.log({"kind": "site", "site": "hillcrest", "round": 3, "status": "budget_spent"})
    run.log({"kind": "hospital_privacy", "round": 3, "claim": "Hospital-level [privacy]."})
    _, out, _ = called(monkeypatch, capsys, "privacy", "explain", str(run.path))
    spent = "Image-level [privacy]. Its budget did not cover round 3 and is spent: from then on nothing left it."
    said = [TO_THE_SERVER, NOTHING_LEFT, spent, NOTHING_LEFT]
    lines = [f"{name}: {text}" for name, text in zip(names, said, strict=True)]
    assert out.splitlines() == [*lines, "hospital level: Hospital-level [privacy].", SIDE_BY_SIDE]
