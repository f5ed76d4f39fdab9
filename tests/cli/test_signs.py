"""`fed-fsad signs ...` as a person calls it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_cli import called
from tests.data.test_sign_check import GOOD

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """(exit code, stdout, stderr) of `fed-fsad signs ARGUMENTS`, on a wide and plain terminal."""
    for name, value in {"COLUMNS": "160", "NO_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    return lambda *arguments: called(monkeypatch, capsys, "signs", *map(str, arguments))


def test_show_lists_the_bundled_sets_and_one_with_its_shared_signs_marked(call: Call, tmp_path: Path) -> None:
    code, out, _ = call("show")
    assert code == 0
    assert "brain_mri  brain_mri: glioma, meningioma, pituitary" in out.splitlines()
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD, encoding="utf-8")
    code, out, _ = call("show", path)
    assert code == 0
    assert out.splitlines()[:3] == ["skin (skin photograph)", "  normal", "      even colour"]
    assert out.count("    * a sharp border") == 2
    assert out.count("*") == 2
    code, _, err = call("show", "brain")
    assert (code, "did you mean 'brain_mri'?" in err) == (2, True)


def test_what_request_asks_for_passes_validate_once_it_is_filled_in(call: Call, tmp_path: Path) -> None:
    code, out, _ = call("request", "--task", "skin_photo", "--categories", "mole, rash")
    assert code == 0
    assert "Write down what a person sees in a skin photo image" in out
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD, encoding="utf-8")
    code, out, err = call("validate", path, "--task", "skin", "--categories", "mole,rash")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{path}:16: note: 'a sharp border' is shared with 'mole' (line 11)",
        "0 errors, 0 warnings",
    ]


def test_validate_counts_the_models_own_tokens_and_ends_with_1(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD.replace("even colour", "an even colour of [skin] " + "x" * 40), encoding="utf-8")
    code, out, _ = call("validate", path)
    assert code == 1
    assert "tokens long and the model reads 36; shorten it" in out
    assert "of [skin] x" in out
    assert call("validate", path, "--model", "ViT-B-32")[0] == 0


def test_what_cannot_be_done_is_one_sentence(call: Call, tmp_path: Path) -> None:
    for arguments, reason in (
        (("validate", tmp_path / "none.yaml"), "cannot be read as text; check the path"),
        (("validate", tmp_path / "none.yaml", "--model", "x"), "cannot be read as text"),
        (("request", "--task", "skin", "--categories", " , "), "--categories names none"),
    ):
        code, _, err = call(*arguments)
        assert (code, reason in err) == (2, True), err
