"""Watching a run that another process writes: every event is shown once, and the end is its summary's."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fed_fsad.config import parse_config
from fed_fsad.errors import CheckpointError
from fed_fsad.progress import PlainProgress
from fed_fsad.rundir import RunDir
from fed_fsad.watching import follow, show

CONFIG = """
name: watched
methods: {d24fad: {}}
data: {kind: phantoms, pool: 8}
hospitals: [{name: north, holds: {organs: [oct]}}]
federation: {rounds: 3}
evaluation: {shots: [2]}
"""


def warning(number: int) -> dict[str, object]:
    return {"kind": "warning", "round": 0, "text": f"number {number}"}


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run", parse_config(CONFIG, "watched.yaml"))


def test_old_and_new_events_are_shown_once_until_the_summary_ends_it(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    run.log(warning(1))

    def write() -> None:
        for number in (2, 3):
            time.sleep(0.6)
            run.log(warning(number))
        run.write_summary({"status": "completed", "error": None})

    writer = threading.Thread(target=write)
    writer.start()
    assert follow(run, PlainProgress())["status"] == "completed"
    writer.join()
    assert capsys.readouterr().out.splitlines() == [f"warning: number {i}" for i in (1, 2, 3)]


def test_a_writer_that_is_gone_ends_it_too(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run.log(warning(1))
    show(run, PlainProgress(), 0, over=lambda: True)
    assert capsys.readouterr().out == "warning: number 1\n"


def test_a_folder_without_a_run_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run"):
        follow(RunDir(tmp_path), PlainProgress())


@pytest.mark.parametrize(("status", "code"), [("completed", 0), ("failed", 1)])
def test_the_command_ends_as_the_run_did(run: RunDir, status: str, code: int) -> None:
    run.write_summary({"status": status, "error": "round 2 got no reply; mend the sites" if code else None})
    command = [sys.executable, "-m", "fed_fsad.cli", "watch", str(run.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert ("round 2 got no reply" in done.stderr) == (code == 1)
