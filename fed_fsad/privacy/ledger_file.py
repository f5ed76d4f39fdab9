"""The ledger as a file: locked while open, only ever appended to, never believed when damaged."""

import fcntl
import logging
import os
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from fed_fsad.durable import append, sync_folder
from fed_fsad.errors import LedgerDamaged, PolicyRefusal
from fed_fsad.privacy.lines import Line, dump, parse

log = logging.getLogger(__name__)


class LedgerFile:
    """An open, locked file of ledger lines. lines: what it held when it was opened."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises PolicyRefusal when it is in use or unwritable, LedgerDamaged."""
        self.path = path
        with ExitStack() as undo:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = undo.enter_context(path.open("a+b"))
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                sync_folder(path.parent)
                self.lines = _read(self._file, path)
            except BlockingIOError as error:
                raise PolicyRefusal(
                    "ledger_busy", f"another process is using the ledger {path}: wait until it has ended"
                ) from error
            except OSError as error:
                raise _unwritable(path, error) from error
            undo.pop_all()

    def append(self, line: Line) -> None:
        """Add a line; on disk when this returns. Raises PolicyRefusal when it cannot be written."""
        try:
            append(self._file, dump(line))
        except OSError as error:
            # How much of the line reached the disk is unknown: only opening the file anew finds out.
            self.close()
            raise _unwritable(self.path, error) from error

    def close(self) -> None:
        """Unlock and close."""
        self._file.close()


def damaged(path: Path, line: int) -> LedgerDamaged:
    """The error for a line that cannot be what was written."""
    return LedgerDamaged(f"line {line} of the ledger {path} is damaged: restore it from a backup, or it trains no more")


def _read(file: BinaryIO, path: Path) -> list[Line]:
    file.seek(0)
    content = file.read()
    *whole, tail = content.split(b"\n")
    if tail and parse(tail):
        # Complete but for its newline (torn there, or an editor's doing): keeping it can only overcount.
        append(file, b"\n")
        whole.append(tail)
    elif tail:
        log.warning("the last line of the ledger %s was torn by a crash before anything left: it is dropped", path)
        file.truncate(len(content) - len(tail))
        os.fsync(file.fileno())
    lines = []
    for number, text in enumerate(whole, start=1):
        line = parse(text)
        if line is None:
            raise damaged(path, number)
        lines.append(line)
    return lines


def _unwritable(path: Path, error: OSError) -> PolicyRefusal:
    return PolicyRefusal(
        "ledger_unwritable", f"the ledger {path} cannot be written ({error.strerror}): make room or grant access to it"
    )
