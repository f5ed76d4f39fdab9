"""Weights of frozen networks: read from a file, checked, and put in place."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from fed_fsad.errors import CheckpointError


def read_weights(path: Path, sha256: str | None = None) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, or of a .pth / .pt file that holds tensors only.

    Raises CheckpointError when the file is missing, unreadable, of another hash, or holds anything but tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no weights file {path}; correct its path")
    if sha256 is not None and _hash(path) != sha256:
        raise CheckpointError(f"{path} does not hash to teacher.sha256; fetch the file again or correct the hash")
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(path.read_bytes())
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, UnpicklingError) as error:
        raise CheckpointError(f"{path} is no readable weights file; fetch it again or name another") from error
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise CheckpointError(f"{path} holds more than tensors; save the network's state_dict alone and name that file")
    return weights


def put_in_place(network: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Load `weights` as float32; only BatchNorm's counters may be missing and nothing may be left over.

    Raises CheckpointError naming `origin` when keys or shapes differ, or when a value is not finite.
    """
    own = {name: value for name, value in network.state_dict().items() if value.is_floating_point()}
    given = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    wrong = sorted(own.keys() ^ given.keys()) or [n for n in own if own[n].shape != given[n].shape]
    if wrong:
        raise CheckpointError(
            f"{origin} does not fit the network ({len(wrong)} tensors differ, first {wrong[0]!r}); "
            "name the architecture these weights were made for"
        )
    if not all(bool(torch.isfinite(value).all()) for value in given.values()):
        raise CheckpointError(f"{origin} holds values that are not finite; fetch the file again or name another")
    network.load_state_dict({name: value.float() for name, value in given.items()}, strict=False)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
