"""Files before anybody knows what is in them."""

import importlib
import stat
from pathlib import Path
from types import ModuleType

from fed_fsad.data.readers.picture import Undecodable
from fed_fsad.errors import DataError

MAX_BYTES = 1 << 29
"""Of a file that is read whole."""
START = 352
"""Bytes that tell every kind of file apart."""


def check_file(path: Path, limit: int | None) -> None:
    """Raises Undecodable for a missing or oversized file, DataError without permission to look."""
    try:
        found = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise Undecodable("it is no regular file; name an image file")
    if limit is not None and found.st_size > limit:
        raise Undecodable(
            f"the file is larger than {limit >> 20} MiB; cut or rescale it, or set reading.tiles for a TIFF"
        )


def read_file(path: Path) -> bytes:
    """A file's bytes. Raises Undecodable for a missing or oversized file, DataError without permission to read."""
    check_file(path, MAX_BYTES)
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def first_bytes(path: Path) -> bytes:
    """The first START bytes, or fewer. Raises as read_file."""
    check_file(path, None)
    try:
        with path.open("rb") as file:
            return file.read(START)
    except OSError as error:
        raise _unreadable(path, error) from error


def denied(path: Path) -> DataError:
    """The error for a path that exists but may not be read."""
    return DataError(f"{path} may not be read: permission denied; give the user of this program the right to read it")


def extra(module: str, what: str) -> ModuleType:
    """A module of the extra `medical`. Raises DataError with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise needs_extra(what, module) from error


def needs_extra(what: str, module: str) -> DataError:
    """The error for a package that is not installed."""
    return DataError(f"reading {what} needs {module.partition('.')[0]}: pip install 'fed-fsad[medical]'")


def _unreadable(path: Path, error: OSError) -> DataError:
    if isinstance(error, PermissionError):
        return denied(path)
    if isinstance(error, FileNotFoundError):
        return Undecodable("there is no such file; correct the path or restore the file")
    return Undecodable(f"the disk does not give it ({error.strerror}); check the drive")
