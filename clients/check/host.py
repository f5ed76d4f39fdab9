"""The site's own machine: versions, the state folder, disk, memory, accelerator."""

import os
import platform
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from clients.check.line import Line, fail, ok, warn
from clients.settings import SiteSettings
from fed_fsad import __version__

DISK_WARN, DISK_FAIL = 2 << 30, 200 << 20
MEMORY_WARN, MEMORY_FAIL = 3 << 30, 1 << 30
"""Bytes. A round with both methods takes about 1.5 GB of memory; ledger and released updates are a few MB."""


def versions(site: SiteSettings) -> Line:
    """What is installed, held against what this project asks for."""
    for text in metadata.requires("fed-fsad") or ():
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            return fail(f"{wanted.name} is not installed", f"pip install '{wanted.name}{wanted.specifier}'")
        if not wanted.specifier.contains(found, prereleases=True):
            asked = f"{wanted.name}{wanted.specifier}"
            return fail(f"{wanted.name} {found} is installed and fed-fsad needs {asked}", f"pip install '{asked}'")
    named = [f"{name} {metadata.version(name)}" for name in ("flwr", "torch")]
    return ok(f"fed-fsad {__version__}, {', '.join(named)}, Python {platform.python_version()}")


def state_folder(site: SiteSettings) -> Line:
    """A file is really written where the ledger will be."""
    state = site.state
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=state, prefix=".check-") as file:
            file.write(b"written by fed-fsad site check")
            file.flush()
            os.fsync(file.fileno())
    except PermissionError as error:
        return fail(
            f"permission denied: {_user()} may not write {error.filename or state}",
            f"sudo chown -R {_user()} {state}, or name another state folder in site.yaml",
        )
    except OSError as error:
        return fail(f"{state} cannot be written ({error.strerror})", "make room, or name another state folder")
    return ok(f"{state} can be written")


def disk(site: SiteSettings) -> Line:
    """Room for the ledger, released updates and logs."""
    free = shutil.disk_usage(_existing(site.state)).free
    text = f"{_gigabytes(free)} free at {site.state}"
    if free < DISK_FAIL:
        return fail(text, "make room: a full disk stops training in the middle of a round")
    return warn(text, "make room before the disk is full") if free < DISK_WARN else ok(text)


def memory(site: SiteSettings) -> Line:
    """Memory that is free now."""
    free = _available_memory()
    if free is None:
        return ok("this system does not tell how much memory is free")
    text = f"{_gigabytes(free)} of memory free"
    if free < MEMORY_FAIL:
        return fail(text, "end other programs or use a larger machine: the system would kill training")
    return warn(text, "end other programs if the system kills training") if free < MEMORY_WARN else ok(text)


def accelerator(site: SiteSettings) -> Line:
    """A GPU, if there is one; training runs without."""
    import torch  # imported late: it takes seconds, and a broken site.yaml should be told of at once

    if not torch.cuda.is_available():
        return ok("no GPU; training uses the processor, which is enough")
    return ok(f"{torch.cuda.get_device_name(0)}")


def _available_memory() -> int | None:
    """What the system and the container's limit, if any, leave free, in bytes."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        left = int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):
        return free
    return min(free, left)


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)


def _gigabytes(size: int) -> str:
    return f"{size / (1 << 30):.1f} GB"


def _user() -> str:
    return os.environ.get("USER") or f"user {os.getuid()}"
