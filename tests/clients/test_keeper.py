"""The keeper of a site's node: what ends the node ends the keeper, but a standstill ends neither for long."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fed_fsad.daemon import Daemon
from tests.processes import running, wait

NODE = """
import os, subprocess, sys, time
from pathlib import Path
folder = Path({folder!r})
starts = len(list(folder.glob("node-*")))
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
(folder / f"node-{{starts}}").write_text(f"{{os.getpid()}} {{child.pid}}")
if starts in {refused}:
    sys.exit(49)
time.sleep(60)
"""
KEEP = """
import sys
from clients import keeper
keeper.STANDSTILL_S, keeper.LOOK_S, keeper.AGAIN_S = 1.5, 0.1, 0.1
sys.argv = ["keeper", sys.executable, "-c", {node!r}]
keeper.main()
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    own = Daemon("Node", tmp_path)
    yield own
    own.stop(0.1)


def start(daemon: Daemon, refused: tuple[int, ...] = ()) -> int:
    """Start a keeper whose node ends at once whenever its number is among `refused`."""
    node = NODE.format(folder=str(daemon.folder), refused=refused)
    pid = daemon.start([sys.executable, "-c", KEEP.format(node=node)], os.environ)
    wait(lambda: nodes(daemon) >= 1)
    return pid


def nodes(daemon: Daemon) -> int:
    return len(list(daemon.folder.glob("node-*")))


def alive(daemon: Daemon, number: int) -> list[bool]:
    """Whether a node and its child run."""
    return [running(int(pid)) for pid in (daemon.folder / f"node-{number}").read_text().split()]


def stand_still(pid: int) -> None:
    os.killpg(pid, signal.SIGSTOP)
    time.sleep(2)
    os.killpg(pid, signal.SIGCONT)


def test_after_a_standstill_the_node_is_another_and_nothing_of_the_first_lives_on(daemon: Daemon) -> None:
    pid = start(daemon)
    stand_still(pid)
    wait(lambda: nodes(daemon) == 2 and all(alive(daemon, 1)))
    wait(lambda: not any(alive(daemon, 0)))
    assert daemon.pid() == pid
    assert "the node is started again" in daemon.log.read_text()
    assert daemon.stop()
    wait(lambda: not any(alive(daemon, 1)))


def test_a_node_that_the_server_refuses_after_a_standstill_tries_again(daemon: Daemon) -> None:
    pid = start(daemon, refused=(1, 2))
    stand_still(pid)
    wait(lambda: nodes(daemon) == 4 and all(alive(daemon, 3)))
    assert daemon.pid() == pid
    assert not alive(daemon, 1)[0]
    assert daemon.log.read_text().count("the node is started again") == 1, "refused, not standing still again"


def test_without_a_standstill_the_node_is_never_started_twice(daemon: Daemon) -> None:
    pid = start(daemon, refused=(0,))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 49
    assert nodes(daemon) == 1


def test_a_keeper_that_is_told_to_end_hands_it_on() -> None:
    code = "from clients import keeper; keeper.main()"
    node = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('up', flush=True); "
    node += "signal.pause()"
    command = [sys.executable, "-c", code, sys.executable, "-c", node]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.wait(30) == 7
