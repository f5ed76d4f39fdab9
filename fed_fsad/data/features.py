"""Images as a frozen network sees them: computed once per image, then kept."""

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fed_fsad.data.feature_store import FeatureStore
from fed_fsad.data.images import read_images
from fed_fsad.data.samples import Sample
from fed_fsad.errors import DataError

Features = Mapping[str, Tensor]
"""Name to tensor [N, ...]; row i of every tensor belongs to image i."""
Key = tuple[str, str, str, int]
"""Image, look of its pixels, frozen model, size."""


@dataclass(frozen=True)
class Rows:
    """N images as frozen features, with what is known of each.

    features: name to [N, ...]. samples: N entries, in the same order.
    """

    features: Features
    samples: tuple[Sample, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def select(self, index: Sequence[int]) -> "Rows":
        """The rows at `index`, in that order."""
        rows = torch.as_tensor(index, dtype=torch.long)
        return Rows(
            {name: tensor[rows] for name, tensor in self.features.items()},
            tuple(self.samples[i] for i in index),
        )

    def to(self, device: torch.device) -> "Rows":
        """The same rows with their features there."""
        return Rows({name: tensor.to(device) for name, tensor in self.features.items()}, self.samples)


class FeatureCache:
    """Frozen features of images in memory; the least recently used are forgotten above `capacity_bytes`.

    store: where they are kept on disk too. half: they are kept, there and here, as float16; every caller then gets
    the rounded values, whether they were computed now or before, so that a run's bits do not depend on what was kept.
    """

    def __init__(self, capacity_bytes: int, store: FeatureStore | None = None, half: bool = False) -> None:
        self._capacity = capacity_bytes
        self._store = store
        self._half = half
        self._kept: OrderedDict[Key, dict[str, Tensor]] = OrderedDict()
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """What the kept features take."""
        return self._bytes

    def rows(
        self,
        model_id: str,
        encode: Callable[[Tensor], Features],
        size: int,
        samples: Sequence[Sample],
        progress: Callable[[int, int], None] | None = None,
    ) -> Rows:
        """The samples' features, in their order; only images not seen before are read and encoded.

        encode: [1, 3, size, size] in [0, 1] to name -> [1, ...]; frozen, and named by model_id. Images are read
        ahead, and encoded one by one, because the last bits of a convolution depend on how many images share the call.
        progress: called with (encoded, to encode). Raises DataError for no samples or for an image that cannot be read.
        """
        if not samples:
            raise DataError("there is no image to look at; add images of the classes that are asked for")
        keys: list[Key] = [(sample.id, sample.look, model_id, size) for sample in samples]
        kept = {key: self._look_up(key) for key in dict.fromkeys(keys)}
        missing = {key: sample for key, sample in zip(keys, samples, strict=True) if kept[key] is None}
        found = {key: row for key, row in kept.items() if row is not None}
        images = read_images([sample.source for sample in missing.values()], size)
        for done, (key, image) in enumerate(zip(missing, images, strict=True), start=1):
            with torch.no_grad():
                encoded = encode(torch.from_numpy(image)[None])
            _check_finite(encoded, missing[key])
            row = {name: self._rounded(tensor[0].detach()) for name, tensor in encoded.items()}
            found[key] = row
            self._keep(key, row)
            if self._store is not None:
                self._store.write(json.dumps(key), row)
            if progress is not None:
                progress(done, len(missing))
        rows = [found[key] for key in keys]
        return Rows({name: torch.stack([_full(row[name]) for row in rows]) for name in rows[0]}, tuple(samples))

    def _look_up(self, key: Key) -> dict[str, Tensor] | None:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        row = None if self._store is None else self._store.read(json.dumps(key))
        if row is not None:
            self._keep(key, row)
        return row

    def _rounded(self, tensor: Tensor) -> Tensor:
        """What is kept of a feature: itself, or its float16, where all its values have one."""
        if not self._half or tensor.dtype != torch.float32:
            return tensor
        half = tensor.half()
        return half if bool(torch.isfinite(half).all()) else tensor

    def _keep(self, key: Key, row: dict[str, Tensor]) -> None:
        self._kept[key] = row
        self._bytes += _size(row)
        while self._bytes > self._capacity:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def _check_finite(features: Features, sample: Sample) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in features.values()):
        raise DataError(
            f"the frozen model's features of {sample.source.name} are not finite; look at that image and at the weights"
        )


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _size(row: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in row.values())
