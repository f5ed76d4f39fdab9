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
    """round: rounds finished. tensors: by method. moments: of the strategies. standing: of the sites, JSON-able.
    texts: by method, a hash of the texts the tensors belong to.
    """

    run: str
    round: int
    tensors: Mapping[str, Tensors]
    moments: Mapping[str, Tensor]
    standing: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)


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
        "texts": dict(checkpoint.texts),
    }
    replace(folder / "latest.json", (json.dumps(latest, indent=1) + "\n").encode())
    return path


def _name(round_: int) -> str:
    return f"round-{round_:04d}.safetensors"


def load_checkpoint(
    folder: Path, run: str, expected: Mapping[str, Tensors], texts: Mapping[str, str] | None = None
) -> Checkpoint | None:
    """The latest checkpoint, or None when no round was finished.

    Raises CheckpointError when it is damaged, of another run, was made with other texts than `texts` (by method),
    or does not fit `expected` (names, shapes, dtypes).
    """
    pointer = folder / "latest.json"
    if not pointer.exists():
        return None
    latest, flat = _read_latest(pointer, run)
    _check_texts(pointer, latest["texts"], texts or {})
    tensors, moments = _sorted_out(flat)
    _check_architecture(pointer, tensors, expected)
    ordered = {method: {name: tensors[method][name] for name in own} for method, own in expected.items()}
    return Checkpoint(run, int(latest["round"]), ordered, moments, latest["standing"], latest["texts"])


def load_tensors(
    folder: Path, run: str, method: str, expected: Tensors, round_: int | None, texts_id: str = ""
) -> tuple[int, Tensors]:
    """The round and its tensors of one method: after the last finished round, or after `round_`.

    Raises CheckpointError as load_checkpoint, and when that round is not there.
    """
    pointer = folder / "latest.json"
    if not pointer.exists():
        raise CheckpointError(f"{folder} holds no finished round; wait for the run's first one, or check the path")
    latest, flat = _read_latest(pointer, run)
    _check_texts(pointer, latest["texts"], {method: texts_id})
    if round_ is not None and round_ != latest["round"]:
        flat = _read_round(folder, round_)
    found, _ = _sorted_out(flat)
    _check_architecture(pointer, {method: found.get(method, {})}, {method: expected})
    return latest["round"] if round_ is None else round_, {name: found[method][name] for name in expected}


def _read_latest(pointer: Path, run: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What latest.json says and the tensors it points at, as saved. Raises CheckpointError."""
    try:
        latest = json.loads(pointer.read_text(encoding="utf-8"))
        owner, file = latest["run"], pointer.parent / str(latest["file"])
        data = file.read_bytes()
        intact = latest["format"] == FORMAT and hashlib.sha256(data).hexdigest() == latest["sha256"]
        flat = load(data) if intact else {}
        latest |= {"round": int(latest["round"]), **{key: dict(latest.get(key, {})) for key in ("standing", "texts")}}
        intact = intact and file.name == _name(latest["round"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(
            f"{pointer}: the checkpoint cannot be read ({type(error).__name__}); {_REMEDY}"
        ) from error
    if not intact:
        raise CheckpointError(f"{file}: the checkpoint is damaged; {_REMEDY}")
    if owner != run:
        raise CheckpointError(f"{pointer}: the checkpoint belongs to another run; {_REMEDY}")
    return latest, flat


def _read_round(folder: Path, round_: int) -> dict[str, Tensor]:
    """The tensors of an earlier round, as saved. Raises CheckpointError."""
    path = folder / _name(round_)
    if not path.exists():
        known = sorted(int(file.stem.removeprefix("round-")) for file in folder.glob("round-*.safetensors"))
        raise CheckpointError(f"{folder} holds no round {round_}; choose one of {', '.join(map(str, known))}")
    try:
        flat: dict[str, Tensor] = load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: the checkpoint is damaged; {_REMEDY}") from error
    return flat


def _sorted_out(flat: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Tensors by method, and moments, from the names they are saved under."""
    tensors: dict[str, dict[str, Tensor]] = {}
    moments: dict[str, Tensor] = {}
    for key, value in flat.items():
        kind, _, name = key.partition("|")
        if kind == "moments":
            moments[name] = value
        else:
            method, _, inner = name.partition("|")
            tensors.setdefault(method, {})[inner] = value
    return tensors, moments


def _check_texts(pointer: Path, saved: Mapping[str, str], texts: Mapping[str, str]) -> None:
    for method, digest in texts.items():
        if saved.get(method, digest) != digest:
            raise CheckpointError(
                f"{pointer}: the checkpoint was trained with other sign lists than {method} reads now; bring the run's "
                "sign files back, or start again with another --out"
            )


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
