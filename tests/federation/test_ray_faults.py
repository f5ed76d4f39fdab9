"""Processes of Flower's own engine are killed in the middle of a run: nothing is swallowed, and the run can go on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fed_fsad.rundir import RunDir

pytestmark = pytest.mark.slow
PATIENCE_S = 300.0


def started(config: str, folder: Path, *more: str) -> subprocess.Popen[bytes]:
    """`fed-fsad simulate` on Ray in a process of its own; its output goes to FOLDER.log."""
    path = folder.with_suffix(".yaml")
    path.write_text(config)
    command = [sys.executable, "-m", "fed_fsad.cli", "simulate", str(path), "--out", str(folder), *more]
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not ready():
        assert process.poll() is None, "the run ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def processes(*words: str) -> list[int]:
    """Process ids whose command line holds all `words`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it ended while we looked
        if all(word in line for word in words):
            found.append(int(entry.parent.name))
    return found


def children_of(ancestor: int) -> set[int]:
    """All processes that descend from `ancestor`."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue
    family = {ancestor}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def rounds_done(folder: Path) -> int:
    if not (folder / "config.yaml").exists():
        return 0
    return max((event["round"] for event in RunDir(folder).events() if event["kind"] == "round"), default=0)


def port_of(folder: Path) -> str:
    text = (folder / "flower" / "config.toml").read_text()
    return text.split("127.0.0.1:")[1].split('"')[0]


def test_a_killed_superlink_ends_the_run_with_a_sentence_and_it_can_be_resumed(
    small_config: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = small_config.replace("rounds: 4", "rounds: 12")
    process = started(config, run, "--set", "engine=ray")
    wait_until(lambda: rounds_done(run) >= 1, process)
    superlinks = processes("flower-superlink", port_of(run))
    assert superlinks
    for superlink in superlinks:
        os.kill(superlink, signal.SIGKILL)
    assert process.wait(timeout=PATIENCE_S) == 1
    log = run.with_suffix(".log").read_text()
    assert "error: " in log
    assert "Traceback" not in log
    assert RunDir(run).summary()["status"] == "failed"
    before = rounds_done(run)
    assert started(config, run, "--set", "engine=ray", "--resume", "require").wait(timeout=PATIENCE_S) == 0
    assert RunDir(run).summary()["status"] == "completed"
    assert RunDir(run).summary()["rounds"] == 12
    assert before < 12, "the kill came in the middle of the run"


def test_after_a_killed_ray_actor_all_rounds_are_whole_or_the_run_stops_and_says_so(
    small_config: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = small_config.replace("rounds: 4", "rounds: 12, deadline_s: 30, retries: 1, min_replies: 3")
    process = started(config, run, "--set", "engine=ray")
    wait_until(lambda: rounds_done(run) >= 1, process)
    actors = [pid for pid in processes("ray::") if pid in children_of(process.pid)]
    assert actors
    os.kill(actors[0], signal.SIGKILL)
    code = process.wait(timeout=PATIENCE_S)
    summary = RunDir(run).summary()
    if code == 0:
        assert (summary["status"], summary["rounds"]) == ("completed", 12), "Flower replaced the actor"
        assert all(site["rounds"] == 12 for site in summary["sites"].values())
    else:
        assert (code, summary["status"]) == (1, "failed"), "the run stopped, and said so"
        assert summary["error"]
        assert summary["rounds"] < 12
