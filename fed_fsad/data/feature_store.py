"""Frozen features on disk: computed once per image, whichever process asks, and never used unless they are whole."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fed_fsad.durable import alone

log = logging.getLogger(__name__)

FORMAT = "1"
FOLDER = "fed-fsad-features"
PART = ".part"
PATIENCE_S = 10.0
"""How long a write waits for another process; then it is left out, because a cache may never hold training up."""
SHARE_KEPT = 0.9
"""What a full cache is swept down to, so that not every write has to sweep."""


class FeatureStore:
    """One file per image, model and size, at most `capacity_bytes` in all; the least recently used make room.

    Files lie in a folder of their own in `path`, open to this user alone: features tell as much as the images do.
    Several processes may share it: they write one at a time, each file whole under its final name, and a reader checks
    the SHA-256 of what it has read. Nothing here raises: where the disk fails, one warning says so and features are
    computed instead.
    """

    def __init__(self, path: Path, capacity_bytes: int) -> None:
        self._folder = path / FOLDER
        self._capacity = capacity_bytes
        self._writes = True
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._folder.chmod(0o700)
            with alone(self._lock, PATIENCE_S):
                self._clear_parts()
                self._note(self._measured())
        except OSError as error:
            self._give_up(error)

    def read(self, key: str) -> dict[str, Tensor] | None:
        """The tensors kept under `key`; None when there are none, or what is there is not what was written."""
        path = self._path(key)
        try:
            with safe_open(path, framework="pt") as file:  # memory-mapped; copied before it is checked
                stated = file.metadata() or {}
                found = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
            os.utime(path)
        except (OSError, SafetensorError, RuntimeError, ValueError):
            return None
        return found if stated == _seal(key, found) else None

    def write(self, key: str, tensors: Mapping[str, Tensor]) -> None:
        """Keep the tensors under `key`, in the place of what was there."""
        content = save({name: tensor.contiguous() for name, tensor in tensors.items()}, _seal(key, tensors))
        if not self._writes or len(content) > self._capacity:
            return
        try:
            with alone(self._lock, PATIENCE_S):
                self._make_room(len(content))
                self._put(self._path(key), content)
        except OSError as error:
            self._give_up(error)

    @property
    def _lock(self) -> Path:
        return self._folder / "lock"

    @property
    def _total(self) -> Path:
        return self._folder / "bytes"

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.safetensors"

    def _put(self, path: Path, content: bytes) -> None:
        """Under its final name only when whole; not forced to the disk, because what is lost is computed again."""
        path.parent.mkdir(mode=0o700, exist_ok=True)
        part = path.with_suffix(PART)
        try:
            part.unlink(missing_ok=True)
            with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        """Count `size` bytes in before they are written: a kill in between leaves the count too high, never too low."""
        total = self._noted()
        if total + size > self._capacity:
            total = self._sweep(int(self._capacity * SHARE_KEPT) - size)
        self._note(total + size)

    def _sweep(self, target: int) -> int:
        """Delete the least recently used files until at most `target` bytes are left; how many are left."""
        total = self._measured()
        for path in sorted(self._entries(), key=lambda entry: (entry.stat().st_mtime_ns, entry.name)):
            if total <= max(target, 0):
                break
            total -= path.stat().st_size
            path.unlink()
        return total

    def _entries(self) -> list[Path]:
        return list(self._folder.glob("??/*.safetensors"))

    def _measured(self) -> int:
        return sum(path.stat().st_size for path in self._entries())

    def _noted(self) -> int:
        try:
            return int(self._total.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return self._measured()

    def _note(self, total: int) -> None:
        self._put(self._total, str(total).encode())

    def _clear_parts(self) -> None:
        """What a killed process left; nobody writes now."""
        for path in self._folder.glob(f"**/*{PART}"):
            path.unlink()

    def _give_up(self, error: OSError) -> None:
        self._writes = False
        log.warning(
            "the feature cache %s cannot be written (%s); make room or correct machine.cache, until then features are "
            "computed anew",
            self._folder,
            error.strerror or "another process holds it",
        )


def _seal(key: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """What a file says of itself: its key, and a SHA-256 over key, names, shapes, dtypes and bytes."""
    digest = hashlib.sha256(json.dumps([FORMAT, key]).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, list(tensor.shape), str(tensor.dtype)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return {"key": key, "sha256": digest.hexdigest()}
