"""`fed-fsad privacy audit`: a table a person can read, figures a program can, and one sentence for what is wrong."""

import json
from pathlib import Path

import pytest

from fed_fsad.cli.audit import NOBODY
from fed_fsad.privacy.audit.finding import HOLDS
from tests.cli.test_cli import _wide_plain_terminal, called
from tests.inference.test_audited import SDMAD, hospital, run_of

__all__ = ["_wide_plain_terminal"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    policy = "{privacy: example, epsilon: 8, methods: {sdmad: [context]}}"
    return run_of(tmp_path_factory.mktemp("audit") / "run", f"hospitals:\n{hospital('north', policy)}{SDMAD}")


def test_a_run_is_audited(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "audit.json"
    code, said, err = called(
        monkeypatch, capsys, "privacy", "audit", str(run), "--checks", "noise, span", "--seed", "3", "--out", str(out)
    )
    assert (code, err) == (0, "")
    assert "sdmad at north: context, image-level ε = 8 at δ = 1e-05, C = 1" in said
    lines = {line.split()[0]: line for line in said.splitlines() if HOLDS in line}
    assert set(lines) == {"noise", "span"}
    assert "when halved" in lines["noise"]
    assert "no image adapter leaves" in lines["span"]
    assert "can refute a promise and never certify one" in said
    content = json.loads(out.read_text(encoding="utf-8"))
    assert (content["seed"], [row["check"] for row in content["findings"]]) == (3, ["noise", "span"])
    assert content["findings"][0]["figures"]["control"] == pytest.approx(0.5, abs=0.05)


def test_a_run_without_privacy_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = run_of(tmp_path / "run", f"hospitals:\n{hospital('north')}{SDMAD}")
    code, said, _ = called(monkeypatch, capsys, "privacy", "audit", str(plain), "--checks", "span")
    assert code == 0
    assert NOBODY in said
    assert "no claim: what an unprotected update shows" in said


def test_what_cannot_be_audited_is_one_sentence(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, number, words in (
        ([str(tmp_path)], 1, "holds no run; give a run directory"),
        ([str(run), "--checks", "lirra"], 2, "there is no check 'lirra'; did you mean 'lira'?"),
        ([str(run), "--checks", "matching"], 2, "matching does not apply to sdmad as this run trained it"),
        ([str(run), "--method", "d24fad"], 2, "has trained no 'd24fad'"),
        ([str(run), "--checks", "noise", "--out", str(tmp_path)], 2, "is a folder; give --out a file"),
    ):
        code, _, err = called(monkeypatch, capsys, "privacy", "audit", *arguments)
        assert (code, words in err, len(err.splitlines())) == (number, True, 1), err
