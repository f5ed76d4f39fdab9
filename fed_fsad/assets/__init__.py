"""The files that come with the wheel: embedded weights, their cards, sign lists."""

import hashlib
from pathlib import Path

from safetensors.torch import load
from torch import Tensor

from fed_fsad.errors import CheckpointError

ROOT = Path(__file__).parent
SUMS = "SHA256SUMS"


def asset(relative: str) -> Path:
    """The path of an embedded file, e.g. "signs/phantoms.yaml". Raises CheckpointError when the wheel lacks it."""
    path = ROOT / relative
    if not path.is_file():
        raise CheckpointError(f"the embedded file {relative} is missing; install fed_fsad again")
    return path


def load_asset(relative: str) -> dict[str, Tensor]:
    """Embedded weights as float32 tensors, whatever precision they are stored in.

    Raises CheckpointError when the file is missing or is not the one whose SHA-256 stands in SHA256SUMS.
    """
    content = asset(relative).read_bytes()
    if hashlib.sha256(content).hexdigest() != read_sums(asset(SUMS)).get(relative):
        raise CheckpointError(f"the embedded file {relative} is not the one in {SUMS}; install fed_fsad again")
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in load(content).items()}


def read_sums(path: Path) -> dict[str, str]:
    """File to SHA-256 from a list as `sha256sum` writes it."""
    return {name: digest for digest, name in (line.split(maxsplit=1) for line in path.read_text().splitlines())}
