"""The state of a federation between two rounds, on disk: whole or not at all, and checked before it is trusted."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fed_fsad.durable import replace
from fed_fsad.errors import CheckpointError
from fed_fsad.messages import Tensors

FORMAT = "fed_fsad/1"


@dataclass(frozen=True)
class Checkpoint:
    """round: rounds finished. tensors: by method. moments: of the strategies. standing: of the sites, JSON-able."""

    run: str
    round: int
    tensors: Mapping[str, Tensors]
    moments: Mapping[str, Tensor]
    standing: Mapping[str, Any] = field(default_factory=dict)


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write round-NNNN.safetensors, then point latest.json at it; a kill leaves the last good one in place."""
    flat = {
        f"tensors|{method}|{name}": tensor for method, own in checkpoint.tensors.items() for name, tensor in own.items()
    }
    flat |= {f"moments|{name}": tensor for name, tensor in checkpoint.moments.items()}
    data = save({name: tensor.detach().contiguous() for name, tensor in flat.items()})
    path = folder / _name(checkpoint.round)
    replace(path, data)
    latest = {
        "format": FORMAT,
        "run": checkpoint.run,
        "round": checkpoint.round,
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "standing": checkpoint.standing,
    }
    replace(folder / "latest.json", (json.dumps(latest, indent=1) + "\n").encode())
    return path


def _name(round_: int) -> str:
    return f"round-{round_:04d}.safetensors"


def load_checkpoint(folder: Path, run: str, expected: Mapping[str, Tensors]) -> Checkpoint | None:
    """The latest checkpoint, or None when no round was finished.

    Raises CheckpointError when it is damaged, of another run, or does not fit `expected` (names, shapes, dtypes).
    """
    pointer = folder / "latest.json"
    if not pointer.exists():
        return None
    try:
        latest = json.loads(pointer.read_text(encoding="utf-8"))
        owner, file = latest["run"], folder / str(latest["file"])
        data = file.read_bytes()
        intact = latest["format"] == FORMAT and hashlib.sha256(data).hexdigest() == latest["sha256"]
        flat = load(data) if intact else {}
        round_, standing = int(latest["round"]), dict(latest.get("standing", {}))
        intact = intact and file.name == _name(round_)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{pointer}: the checkpoint cannot be read ({type(error).__name__}); {_REMEDY}"
        ) from error
    if not intact:
        raise CheckpointError(f"{file}: the checkpoint is damaged; {_REMEDY}")
    if owner != run:
        raise CheckpointError(f"{pointer}: the checkpoint belongs to another run; {_REMEDY}")
    tensors: dict[str, dict[str, Tensor]] = {method: {} for method in expected}
    moments: dict[str, Tensor] = {}
    for key, value in flat.items():
        kind, _, name = key.partition("|")
        if kind == "moments":
            moments[name] = value
        else:
            method, _, inner = name.partition("|")
            tensors.setdefault(method, {})[inner] = value
    _check_architecture(pointer, tensors, expected)
    ordered = {method: {name: tensors[method][name] for name in own} for method, own in expected.items()}
    return Checkpoint(run, round_, ordered, moments, standing)


def _check_architecture(pointer: Path, found: Mapping[str, Tensors], expected: Mapping[str, Tensors]) -> None:
    for method in sorted(set(found) | set(expected)):
        old, new = found.get(method, {}), expected.get(method, {})
        for name in sorted(set(old) | set(new)):
            held, needed = _kind(old.get(name)), _kind(new.get(name))
            if held != needed:
                raise CheckpointError(
                    f"{pointer}: the checkpoint is of another architecture, {method} {name} differs: it holds {held}, "
                    f"this version trains {needed}; {_REMEDY}"
                )


def _kind(tensor: Tensor | None) -> str:
    return "nothing" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


_REMEDY = "restore the file from a copy, or start again with another --out"
