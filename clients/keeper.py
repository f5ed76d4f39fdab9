"""Keeps Flower's supernode: hands on signals and its exit code, and starts it again after a standstill.

    python -m clients.keeper COMMAND...

A node of Flower (1.41) that stood still for half a minute while its app was at work answers in the app's place; the
app's own answer comes on top, and from then on every answer leaves with the next question. A new node begins anew.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType

from fed_fsad.daemon import PATIENCE_S, end_others

STANDSTILL_S = 20.0
LOOK_S = 0.5
AGAIN_S = 5.0
REFUSED_S = 120.0
"""For about a minute the server takes the old connection for alive and refuses a new one."""


class Keeper:
    """One node at a time, of this command."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._ending = False
        self._node = subprocess.Popen(command)

    def end(self, number: int, _: FrameType | None) -> None:
        """Hand on a signal to end, which is not answered by another start."""
        self._ending = True
        self._node.send_signal(number)

    def keep(self) -> int:
        """Until the node ends by itself or is told to; its exit code."""
        seen = refused_until = _now()
        while True:
            code = self._ended_within(LOOK_S)
            now = _now()
            if code is not None:
                if code == 0 or self._ending or now > refused_until:
                    return code
                time.sleep(AGAIN_S)
                if self._ending:
                    return code
                self._node = subprocess.Popen(self._command)
            elif now - seen > STANDSTILL_S and not self._ending:
                print(f"This computer stood still for {now - seen:.0f} s: the node is started again.", flush=True)
                self._replace()
                refused_until = _now() + REFUSED_S
            seen = _now()

    def _replace(self) -> None:
        self._node.terminate()
        if self._ended_within(PATIENCE_S) is None:
            self._node.kill()
            self._node.wait()
        end_others()
        if not self._ending:
            self._node = subprocess.Popen(self._command)

    def _ended_within(self, seconds: float) -> int | None:
        """The node's exit code, as a shell gives it; None when it still runs."""
        try:
            code = self._node.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        return code if code >= 0 else 128 - code


def _now() -> float:
    """Seconds that go on while the computer sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def main() -> None:
    keeper = Keeper(sys.argv[1:])
    for told in (signal.SIGTERM, signal.SIGINT):
        signal.signal(told, keeper.end)
    sys.exit(keeper.keep())


if __name__ == "__main__":
    main()
