"""Images as a frozen network sees them: computed once per image, then kept."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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


class FeatureCache:
    """Frozen features of images in memory; the least recently used are forgotten above `capacity_bytes`."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
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
        kept = {key: self._look_up(key) for key in keys}
        missing = {key: sample for key, sample in zip(keys, samples, strict=True) if kept[key] is None}
        found = {key: row for key, row in kept.items() if row is not None}
        images = read_images([sample.source for sample in missing.values()], size)
        for done, (key, image) in enumerate(zip(missing, images, strict=True), start=1):
            with torch.no_grad():
                row = {name: tensor[0].detach() for name, tensor in encode(torch.from_numpy(image)[None]).items()}
            found[key] = row
            self._keep(key, row)
            if progress is not None:
                progress(done, len(missing))
        rows = [found[key] for key in keys]
        return Rows({name: torch.stack([row[name] for row in rows]) for name in rows[0]}, tuple(samples))

    def _look_up(self, key: Key) -> dict[str, Tensor] | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def _keep(self, key: Key, row: dict[str, Tensor]) -> None:
        self._kept[key] = row
        self._bytes += _size(row)
        while self._bytes > self._capacity:
            self._bytes -= _size(self._kept.popitem(last=False)[1])


def _size(row: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in row.values())
