"""The command line: help that is quick and complete, errors of one sentence, a table that hides nobody."""

import re
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from fed_fsad.cli import main
from fed_fsad.cli.simulate import closing_table
from fed_fsad.rundir import RunDir

REPOSITORY = Path(__file__).parents[2]
DEMO = str(REPOSITORY / "configs" / "demo.yaml")


@pytest.fixture(autouse=True)
def _wide_plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")


def called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of `fed-fsad ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["fed-fsad", *arguments])
    code: object = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    out, err = capsys.readouterr()
    assert isinstance(code, int)
    return code, out, err


def test_help_says_what_it_is_and_what_there_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = called(monkeypatch, capsys, "--help")
    assert code == 0
    for words in ("few-shot medical anomaly detection", "--verbose", "simulate", "report", "write a report"):
        assert words in out, words


def test_the_help_of_simulate_lists_and_explains_every_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = called(monkeypatch, capsys, "simulate", "--help")
    assert code == 0
    assert "CONFIG is a YAML file" in out
    for option in ("--out", "--data", "--set", "--resume"):
        line = next(line for line in out.splitlines() if re.match(rf"\W*{option}\b", line))
        assert len(re.findall(r"[A-Za-z]{2,}", line.split(option, 1)[1])) >= 4, f"{option} is not explained: {line}"


def test_the_report_command_says_what_run_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "run directory RUN" in called(monkeypatch, capsys, "report", "--help")[1]


def test_the_command_starts_without_the_heavy_libraries() -> None:
    heavy = ("torch", "flwr", "matplotlib", "pydantic", "sklearn")
    code = f"import fed_fsad.cli, sys; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ["simulate", DEMO, "--set", "federation.ronds=3"],
            2,
            r"unknown key 'federation\.ronds'; did you mean 'rounds'",
        ),
        (["simulate", DEMO, "--set", "federation"], 2, "write it as key=value"),
        (["simulate", DEMO, "--set", "methods.sdmad=false"], 2, r"methods\.sdmad: .*but it is False; change it"),
        (["simulate", DEMO, "--set", "methods.sdmad.withheld=[x]"], 2, r"evaluation\.unseen_categories; state"),
        (["simulate", DEMO, "--set", "federation={rounds: 1, rounds: 2}"], 2, r"--set federation=.* written twice"),
        (["simulate", DEMO, "--set", "hospitals.²=1"], 2, "there is no item '²' in that list"),
        (["simulate", "nowhere.yaml"], 2, r"nowhere\.yaml: the config cannot be read"),
        (["simulate", DEMO, "--out", f"{DEMO}/run"], 1, "cannot be written .*; choose another --out"),
        (["report", "nowhere"], 1, "nowhere is no run directory"),
    ],
)
def test_what_a_user_gets_wrong_is_one_sentence_and_an_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, said: str
) -> None:
    found, out, err = called(monkeypatch, capsys, *arguments)
    assert (found, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(said, err), err


def test_an_unknown_option_ends_with_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, capsys, "simulate", DEMO, "--ot", "x")[0] == 2


def test_ctrl_c_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*args: object) -> RunDir:
        raise KeyboardInterrupt

    monkeypatch.setattr("simulations.simulate.simulate", interrupted)
    code, _, err = called(monkeypatch, capsys, "simulate", DEMO, "--out", "some/where")
    assert (code, err) == (130, "stopped; continue some/where with --resume auto\n")


def test_a_data_folder_may_have_any_name(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    roots: list[Path] = []

    def caught(config: object, *args: object) -> RunDir:
        roots.append(config.data.root)  # type: ignore[attr-defined]
        raise KeyboardInterrupt

    monkeypatch.setattr("simulations.simulate.simulate", caught)
    config = str(REPOSITORY / "configs" / "brain_mri.yaml")
    for folder in ("/data/1: the #1 set", "/42", "/Größe"):
        called(monkeypatch, capsys, "simulate", config, "--data", folder)
    called(monkeypatch, capsys, "simulate", config, "--data", "42")
    assert [str(root) for root in roots] == ["/data/1: the #1 set", "/42", "/Größe", str(Path("42").resolve())]


BLOCK = {
    "image_auroc": {"2": 0.6, "4": 0.7},
    "each": {"federated": {"2": 0.6, "4": 0.7}, "knn": {"2": 0.8, "4": 0.9}, "raw_pixels": {"2": None}},
    "headline_name": "image AUROC, 4 shots",
    "interval": [0.61, 0.79],
    "arms": {"federated": 0.7, "pooled": 0.8, "local": 0.65, "untrained": 0.5},
    "baselines": {"knn": 0.9, "raw_pixels": None, "zero_shot": 0.72},
}


def rows() -> Iterator[list[str]]:
    screen = StringIO()
    Console(file=screen, width=120).print(closing_table("d24fad", BLOCK))
    title, _, *lines, caption = screen.getvalue().splitlines()
    assert title.strip() == "d24fad: image AUROC, 4 shots"
    assert caption.strip() == "* simple baseline"
    yield from (re.split(r"\s{2,}", line.strip()) for line in lines)


def test_the_closing_table_shows_everyone_best_first_whoever_wins() -> None:
    assert [row[:2] for row in rows()] == [
        ["knn *", "0.900"],
        ["pooled", "0.800"],
        ["zero_shot *", "0.720"],
        ["federated", "0.700"],
        ["local", "0.650"],
        ["untrained", "0.500"],
        ["raw_pixels *", "–"],
    ]


def test_only_the_federated_row_carries_the_interval_that_was_computed_for_it() -> None:
    assert {row[0]: row[2] for row in rows() if " to " in row[2]} == {"federated": "0.610 to 0.790"}


def test_all_shots_of_everyone_stand_beside_the_headline() -> None:
    assert {row[0]: row[-2:] for row in rows()} == {
        "knn *": ["0.800", "0.900"],
        "pooled": ["–", "–"],
        "zero_shot *": ["–", "–"],
        "federated": ["0.600", "0.700"],
        "local": ["–", "–"],
        "untrained": ["–", "–"],
        "raw_pixels *": ["–", "–"],
    }
