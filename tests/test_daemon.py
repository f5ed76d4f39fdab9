"""Background processes: found by a lock and not by a number, ended with everything that they started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fed_fsad.daemon import Daemon
from fed_fsad.errors import FederationError

SLEEP = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)",
]

ELSEWHERE = [
    sys.executable,
    "-c",
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)",
]


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    own = Daemon("Sleeper", tmp_path)
    yield own
    own.stop(0.1)


def wait_for(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def lives(pid: int) -> bool:
    """Whether a process still does anything: one that only waits to be noticed by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_it_is_found_by_others_and_ended(daemon: Daemon) -> None:
    assert daemon.pid() is None
    assert not daemon.stop()
    pid = daemon.start(SLEEP, os.environ)
    wait_for(lambda: "ready" in daemon.tail())
    assert Daemon("Sleeper", daemon.folder).pid() == pid
    where = f"Path({str(daemon.folder)!r})"
    asked = f"from fed_fsad.daemon import Daemon; from pathlib import Path; print(Daemon('Sleeper', {where}).pid())"
    other = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == str(pid)
    assert daemon.stop()
    assert daemon.pid() is None
    assert not lives(pid)


def test_a_second_start_is_refused_with_the_number_of_the_first(daemon: Daemon) -> None:
    pid = daemon.start(SLEEP, os.environ)
    with pytest.raises(FederationError, match=rf"Sleeper runs already \(process {pid}\); stop it first"):
        daemon.start(SLEEP, os.environ)
    assert daemon.pid() == pid


def test_a_number_that_was_left_behind_is_not_taken_for_the_process(daemon: Daemon) -> None:
    with subprocess.Popen(SLEEP, stdout=subprocess.DEVNULL) as stranger:
        (daemon.folder / "sleeper.pid").write_text(str(stranger.pid))
        assert daemon.pid() is None
        assert not daemon.stop()
        assert stranger.poll() is None, "somebody else's process was ended"
        (daemon.folder / "sleeper.pid").write_text(str(stranger.pid))
        assert daemon.start(SLEEP, os.environ) != stranger.pid
        assert stranger.poll() is None
        stranger.kill()


def test_one_that_does_not_listen_is_killed_with_its_children(daemon: Daemon) -> None:
    pid = daemon.start(STUBBORN, os.environ)
    wait_for(lambda: daemon.tail().isdecimal())
    child = int(daemon.tail())
    assert lives(child)
    assert daemon.stop(0.2)
    wait_for(lambda: not lives(pid) and not lives(child))


def test_what_a_killed_one_left_behind_is_ended_before_the_next_start(daemon: Daemon) -> None:
    started = (
        "import os, sys; from pathlib import Path; from fed_fsad.daemon import Daemon\n"
        f"Daemon('Sleeper', Path({str(daemon.folder)!r})).start({STUBBORN!r}, os.environ)"
    )
    subprocess.run([sys.executable, "-c", started], check=True)  # by a parent that is gone, as on a real host
    wait_for(lambda: daemon.tail().isdecimal())
    child, pid = int(daemon.tail()), daemon.pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: daemon.pid() is None)
    assert lives(child)
    assert daemon.start(SLEEP, os.environ) != pid
    wait_for(lambda: not lives(child))


def test_the_last_lines_of_a_log_come_in_one_line_and_without_colours(daemon: Daemon) -> None:
    assert daemon.tail() == "its log is empty"
    daemon.log.write_text("one\n\n\x1b[91mERROR \x1b[0m:   two\n  three  \n\n")
    assert daemon.tail(2) == "ERROR : two | three"


def test_a_child_in_a_session_of_its_own_ends_too(daemon: Daemon) -> None:
    daemon.start(ELSEWHERE, os.environ)
    wait_for(lambda: daemon.tail().isdecimal())
    child = int(daemon.tail())
    assert lives(child)
    assert daemon.stop()
    wait_for(lambda: not lives(child))
