"""Few-shot episodes of formula-made families, as tensors (ours)."""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fed_fsad.seeds import numpy_stream
from pretraining.families import sample_family
from pretraining.scenes import draw


@dataclass(frozen=True)
class FamilyEpisodes:
    """E episodes: per family K unaltered supports, then Q queries of which every second is altered.

    pixels: [E, K + Q, 3, S, S] in 0..1. texture, region: [E, K + Q, S, S] int64. altered: [E, K + Q, S, S] in 0/1.
    """

    pixels: Tensor
    texture: Tensor
    region: Tensor
    altered: Tensor
    supports: int

    def to(self, device: torch.device) -> Self:
        """The same episodes there."""
        return replace(
            self, **{name: getattr(self, name).to(device) for name in ("pixels", "texture", "region", "altered")}
        )

    def altered_share(self, cells: int) -> Tensor:
        """The queries' altered share of each of cells x cells fields, [E, Q, cells, cells]."""
        return F.adaptive_avg_pool2d(self.altered[:, self.supports :], cells)


def family_episodes(seed: int, step: int, episodes: int, supports: int, queries: int, size: int) -> FamilyEpisodes:
    """The episodes of one step; a pure function of its arguments."""
    scenes = []
    for number in range(episodes):
        rng = numpy_stream(seed, "families", step, number)
        family = sample_family(rng)
        scenes += [draw(family, rng, size, alter=i >= supports and i % 2 == 1) for i in range(supports + queries)]

    def stacked(name: str) -> Tensor:
        tensor = torch.from_numpy(np.stack([getattr(scene, name) for scene in scenes]))
        return tensor.reshape(episodes, supports + queries, *tensor.shape[1:])

    return FamilyEpisodes(
        stacked("pixels"), stacked("texture"), stacked("region"), stacked("altered").float(), supports
    )
