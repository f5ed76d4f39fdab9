"""Tied processes, real ones: whatever becomes of the process that started them, they end with it."""

import os
import signal
import subprocess
import sys
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from fed_fsad.tied import TIED, Tied
from tests.test_daemon import lives, wait_for

CHILD = (
    "import os, signal, sys, time\n"
    "from fed_fsad import tied\n"
    "tied.PATIENCE_S = 0.3\n"
    "tied.heed()\n"
    "assert tied.TIED not in os.environ, 'its own children would inherit it'\n"
    "if 'deaf' in sys.argv: signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    "try: print(os.getpid(), flush=True); time.sleep(60)\n"
    "except KeyboardInterrupt: print('stopped', flush=True)\n"
)
PARENT = (
    "import os, sys, time\n"
    "from fed_fsad.tied import Tied, interruptible\n"
    "from tests.test_tied import launched\n"
    "tied = Tied()\n"
    "child = tied.start(lambda: launched(*sys.argv[1:]))\n"
    "with interruptible():\n"
    "    try: print(child.stdout.readline(), end='', flush=True); time.sleep(60)\n"
    "    except KeyboardInterrupt: tied.stop(); print('told', child.stdout.readline(), child.wait(), flush=True)\n"
)


def launched(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *words], env={**os.environ, TIED: "1"}, text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
def tied() -> Tied:
    return Tied()


@pytest.mark.parametrize("ears", ["hearing", "deaf"])
def test_what_is_stopped_ends_as_at_ctrl_c_and_otherwise_is_killed(tied: Tied, ears: str) -> None:
    process = tied.start(lambda: launched("-c", CHILD, ears))
    assert process.stdout is not None
    with process.stdout:
        assert int(process.stdout.readline()) == process.pid
        tied.stop()
        assert process.stdout.read() == ("stopped\n" if ears == "hearing" else "")
    assert process.wait(20) == (0 if ears == "hearing" else -signal.SIGKILL)
    with pytest.raises(CancelledError):
        tied.start(lambda: launched("-c", CHILD))


@pytest.mark.parametrize(("number", "told"), [(signal.SIGTERM, "told stopped\n 0\n"), (signal.SIGKILL, "")])
def test_it_ends_with_a_parent_that_is_told_to_or_killed(number: signal.Signals, told: str) -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT, "-c", CHILD], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert os.getpgid(pid) == pid, "Ctrl-C in a terminal would reach it twice"
        assert lives(pid)
        parent.send_signal(number)
        wait_for(lambda: not lives(pid))
        assert parent.stdout.read() == told


def test_it_can_be_stopped_where_a_shell_has_it_ignore_ctrl_c() -> None:
    script = f'trap \'\' INT; exec {sys.executable} -c "$PARENT" -c "$CHILD"'
    environment = {**os.environ, "PARENT": PARENT, "CHILD": CHILD}
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.terminate()
        assert parent.stdout.read() == "told stopped\n 0\n"
        assert not lives(pid)


def test_a_program_that_was_not_started_tied_may_close_its_input(tmp_path: Path) -> None:
    code = "import time; from fed_fsad.tied import heed; heed(); time.sleep(0.5); print('done')"
    environment = {key: value for key, value in os.environ.items() if key != TIED}
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stdout) == (0, "done\n")
