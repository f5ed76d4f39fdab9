"""Runs that are forked, not started: real processes, as alone as if a shell had started them."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fed_fsad.data.settings import FolderData
from fed_fsad.errors import FederationError
from fed_fsad.machine import SHARED
from fed_fsad.tied import Tied
from simulations.batch.execute import FEATURES, _start
from simulations.batch.nursery import Forked, Nursery
from tests.federation.test_ray_faults import children_of
from tests.simulations.test_study import cells
from tests.test_daemon import lives, wait_for


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery([], 1) as found:
        yield found


def ended(run: Forked) -> tuple[str, int, int]:
    """What it said, its code, and its memory."""
    with run.stdin, run.stdout:
        said = run.stdout.read()
    return (said, *run.wait())


def test_a_forked_run_says_and_ends_as_a_started_one(nursery: Nursery, tmp_path: Path) -> None:
    words = ["simulate", str(tmp_path / "nowhere.yaml")]
    alone = subprocess.run(
        [sys.executable, "-m", "fed_fsad.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said, code, peak = ended(nursery.start(words, {}))
    assert (said, code) == (alone.stdout, alone.returncode)
    assert code > 0
    assert 2**20 < peak < 2**40


def test_runs_go_on_side_by_side_and_know_nothing_of_each_other(nursery: Nursery) -> None:
    both = [nursery.start(["signs", "--help"], {"COLUMNS": width}) for width in ("60", "90")]
    narrow, wide = (ended(run) for run in both)
    assert narrow[1] == wide[1] == 0
    assert max(map(len, narrow[0].splitlines())) <= 60 < max(map(len, wide[0].splitlines())) <= 90


def test_a_run_that_is_killed_is_told_apart_and_takes_no_other_with_it(nursery: Nursery, tmp_path: Path) -> None:
    os.mkfifo(endless := tmp_path / "endless.yaml")
    before = children_of(os.getpid())
    run = nursery.start(["simulate", str(endless)], {})
    wait_for(lambda: len(children_of(os.getpid()) - before) == 2)
    watching, running = sorted(children_of(os.getpid()) - before)
    assert os.getpgid(running) == running, "Ctrl-C in a terminal would reach it twice"
    os.kill(running, signal.SIGKILL)
    assert ended(run)[:2] == ("", -signal.SIGKILL)
    wait_for(lambda: not lives(watching))
    assert ended(nursery.start(["--help"], {}))[1] == 0


class Noted(Nursery):
    """Starts nothing, and keeps what it should have started."""

    def __init__(self) -> None:
        self.environments: list[dict[str, str]] = []

    def start(self, words: Sequence[str], environment: Mapping[str, str]) -> Forked:
        self.environments.append(dict(environment))
        return Forked(*os.pipe()[::-1], socket.socketpair()[0])


def test_only_runs_on_phantoms_share_features_unasked(tmp_path: Path) -> None:
    (phantoms,) = cells(tmp_path)
    folder = FolderData(kind="folder", root=tmp_path, task="oct")
    own = replace(phantoms, config=phantoms.config.model_copy(update={"data": folder}))
    noted = Noted()
    for cell in (phantoms, own):
        _start(cell, tmp_path, noted, Tied(), None)
    assert noted.environments == [{SHARED: str(tmp_path / FEATURES)}, {}]


def test_who_has_no_nursery_any_more_is_told_so() -> None:
    before = children_of(os.getpid())
    with Nursery([], 1) as lost:
        (pid,) = children_of(os.getpid()) - before
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not lives(pid))
        with pytest.raises(FederationError, match="start the same command again"):
            lost.start(["--help"], {})
