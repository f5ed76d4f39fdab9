"""What one process keeps: each frozen model once, each image's features once, however many sites live in it."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from fed_fsad import methods
from fed_fsad.data.feature_store import FeatureStore
from fed_fsad.data.features import FeatureCache, Features, Rows
from fed_fsad.data.samples import Sample
from fed_fsad.machine import MachineSettings, device_of, maker, sharing
from fed_fsad.methods.method import Method, TrainingSettings, part_of

CACHE_BYTES = 2 << 30
"""Features kept in memory before the least recently used make room."""

_machine = MachineSettings()
_features = FeatureCache(CACHE_BYTES)


def use(machine: MachineSettings) -> None:
    """From now on this process computes and keeps features as its host asks.

    Raises ConfigError for a device that is not there.
    """
    global _machine, _features
    machine = sharing(machine)
    device_of(machine)
    if machine != _machine:
        cache = machine.cache
        store = None if cache is None else FeatureStore(cache.path, int(cache.gib * (1 << 30)))
        _features = FeatureCache(CACHE_BYTES, store, half=cache is not None and cache.precision == "float16")
        _machine = machine


def resident(name: str, settings: TrainingSettings, seed: int) -> Method:
    """This process's one instance of a method, on its device; load the tensors you mean before every use of it."""
    return _built(name, settings, seed, device_of(_machine))[0]


def start_of(name: str, settings: TrainingSettings, seed: int) -> dict[str, Tensor]:
    """The start values of the parts that stay at the sites: the same at every site, and at the server."""
    return _built(name, settings, seed, device_of(_machine))[1]


@lru_cache(maxsize=8)
def _built(name: str, settings: TrainingSettings, seed: int, device: torch.device) -> tuple[Method, dict[str, Tensor]]:
    """A method, and its local parts as they are before anything is trained."""
    method = methods.build(name, settings, seed)
    if device.type != "cpu":
        method.to(device)
    return method, {key: tensor for key, tensor in method.snapshot().items() if part_of(key) in settings.local_parts}


def rows_of(method: Method, progress: Callable[[int, int], None] | None = None) -> Callable[[Sequence[Sample]], Rows]:
    """A function from samples to this method's features of them, [N, ...] each on its device, computed at most once
    per image.
    """
    device = next(iter(method.trainable().values())).device

    def encode(images: Tensor) -> Features:
        if _machine.precision == "float32":
            return {name: tensor.cpu() for name, tensor in method.features(images.to(device)).items()}
        with torch.autocast(device.type, torch.bfloat16):
            return {name: tensor.float().cpu() for name, tensor in method.features(images.to(device)).items()}

    def rows(samples: Sequence[Sample]) -> Rows:
        model = f"{method.model_id}/{maker(_machine)}"
        return _features.rows(model, encode, method.image_size, samples, progress).to(device)

    return rows
