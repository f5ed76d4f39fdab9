"""What the computer a process runs on is to use: its device, its precision, and a cache of features on its disk."""

import hashlib
import os
from functools import lru_cache
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, field_validator

import fed_fsad
from fed_fsad.data.settings import Settings
from fed_fsad.errors import ConfigError

SHARED = "FED_FSAD_SHARED_FEATURES"
"""In the environment of a process: the folder of a cache that it shares with others, where its host states none."""
SHARED_GIB = 8.0


class CacheSettings(Settings):
    """Frozen features kept on disk; they tell as much as the images, so only whoever owns those says where."""

    path: Path = Field(description="folder, from / on; a folder of this user alone is made in it")
    gib: float = Field(20.0, gt=0, description="GiB at most; the least recently used features make room")
    precision: Literal["float32", "float16"] = Field(
        "float32", description="float32 gives the bits of features computed anew; float16 takes half the room"
    )

    @field_validator("path")
    @classmethod
    def _from_the_root(cls, path: Path) -> Path:
        if not path.expanduser().is_absolute():
            raise ValueError(f"{path} is not a whole path; write it from / on")
        return path.expanduser()


class MachineSettings(Settings):
    """Every host decides for itself, a hospital in its site.yaml; nothing of this travels."""

    device: str = Field(
        "cpu",
        pattern=r"^(auto|cpu|cuda(:[0-9]{1,2})?)$",
        description="cpu, cuda, cuda:N, or auto: a GPU where there is one",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the frozen networks; bfloat16 is quicker on a GPU and changes the features a little"
    )
    cache: CacheSettings | None = Field(None, description="features on disk, a group; null = in memory only")


def sharing(machine: MachineSettings) -> MachineSettings:
    """The same with the cache that this process is to share, where none is stated."""
    if machine.cache is not None or not (folder := os.environ.get(SHARED)):
        return machine
    return machine.model_copy(update={"cache": CacheSettings(path=Path(folder), gib=SHARED_GIB)})


def device_of(machine: MachineSettings) -> torch.device:
    """The device to compute on. Raises ConfigError for a GPU that is not there."""
    if machine.device == "cpu":
        return torch.device("cpu")
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if machine.device == "auto" and not there:
        return torch.device("cpu")
    device = torch.device("cuda:0" if machine.device in ("auto", "cuda") else machine.device)
    if (device.index or 0) >= there:
        raise ConfigError(
            f"machine.device is {machine.device} and torch finds {there} GPUs here; write cpu or auto, or install a "
            "torch and a driver that fit the GPU"
        )
    # What makes sums come out in one order; cuBLAS reads its setting when the first work reaches the GPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return device


def maker(machine: MachineSettings) -> str:
    """All that decides a feature's bits beside image, model and size: features of another maker are never used."""
    device = device_of(machine)
    own = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else torch.cuda.get_device_name(device)
    kept = machine.cache.precision if machine.cache else "float32"
    return f"{_code()}/{torch.__version__}/{own}/{torch.get_num_threads()}/{machine.precision}/{kept}"


@lru_cache(maxsize=1)
def _code() -> str:
    """SHA-256 over the code that makes images and features: another version of it may make others."""
    digest, package = hashlib.sha256(), Path(fed_fsad.__file__).parent
    for path in sorted(path for room in ("data", "methods") for path in (package / room).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
