"""Images as a frozen network sees them: computed once per image, then kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fed_fsad.data.samples import Sample

Features = Mapping[str, Tensor]
"""Name to tensor [N, ...]; row i of every tensor belongs to image i."""


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
