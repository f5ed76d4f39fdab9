"""The state of a federation between two rounds, on disk: whole or not at all, and checked before it is trusted."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fed_fsad.durable import replace
from fed_fsad.errors import CheckpointError
from fed_fsad.messages import Tensors

FORMAT = "fed_fsad/1"


@dataclass(frozen=True)
class Checkpoint:
    """round: rounds finished. tensors: by method. moments: of the strategies."""

    run: str
    round: int
    tensors: Mapping[str, Tensors]
    moments: Mapping[str, Tensor]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write round-NNNN.safetensors, then point latest.json at it; a kill leaves the last good one in place."""
    flat = {
        f"tensors|{method}|{name}": tensor for method, own in checkpoint.tensors.items() for name, tensor in own.items()
    }
    flat |= {f"moments|{name}": tensor for name, tensor in checkpoint.moments.items()}
    data = save({name: tensor.detach().contiguous() for name, tensor in flat.items()})
    path = folder / f"round-{checkpoint.round:04d}.safetensors"
    replace(path, data)
    latest = {
        "format": FORMAT,
        "run": checkpoint.run,
        "round": checkpoint.round,
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    replace(folder / "latest.json", (json.dumps(latest, indent=1) + "\n").encode())
    return path


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
        round_ = int(latest["round"])
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
    return Checkpoint(run, round_, ordered, moments)


def _check_architecture(pointer: Path, found: Mapping[str, Tensors], expected: Mapping[str, Tensors]) -> None:
    for method in sorted(set(found) | set(expected)):
        old, new = found.get(method, {}), expected.get(method, {})
        for name in sorted(set(old) | set(new)):
            if (
                name not in old
                or name not in new
                or old[name].shape != new[name].shape
                or old[name].dtype != new[name].dtype
            ):
                raise CheckpointError(
                    f"{pointer}: the checkpoint is of another architecture, {method} {name} differs; {_REMEDY}"
                )


_REMEDY = "restore the file from a copy, or start again with another --out"
