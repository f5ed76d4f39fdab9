"""The embedded D²4FAD teacher: an ImageNet network's stages distilled into a small one (ours).

Two losses: from each small stage a linear map, thrown away afterwards, must give the large one's features; and the
cosines among places, all that nearest neighbours see, must be those of the large network.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fed_fsad.seeds import derive, torch_stream
from pretraining.device import half_products
from pretraining.targets import Targets
from pretraining.teacher import new_network, normalised
from pretraining.training import Plan

PLACES = 256
"""Places whose cosines are compared, per step and kind of patch."""
SHARPNESS = 20.0
"""Cosines are compared as softmax of this times them: near neighbours count most."""
RELATIONS = 1.0
"""Weight of the relations beside the features."""


def distillation_plan(seed: int, steps: int, begun: str = "") -> Plan:
    """The recipe of the distilled teacher. begun: SHA-256 of the weights it goes on from, none when from nothing."""
    return Plan("distilled", seed, steps, lr=1e-3 if begun else 2e-3, weight_decay=1e-2, save_every=100, begun=begun)


class Distillation(nn.Module):
    """The network with the linear maps that only training needs."""

    def __init__(self, targets: Targets, plan: Plan, batch: int) -> None:
        super().__init__()
        self.targets, self.plan, self.batch = targets, plan, batch
        self.network = new_network(plan.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(plan.seed, "teacher", "maps"))
            self.maps = nn.ModuleList(
                nn.Conv2d(width, stage.shape[1], 1)
                for width, stage in zip(self.network.widths, targets.stages, strict=True)
            )

    def loss(self, step: int) -> Tensor:
        """The step's loss on images drawn without replacement."""
        generator = torch_stream(self.plan.seed, "distillation", step)
        chosen = torch.randperm(len(self.targets.images), generator=generator)[: self.batch]
        device = next(self.parameters()).device
        images = self.targets.images[chosen].to(device).float() / 255
        wanted = [stage[chosen].to(device).float() for stage in self.targets.stages]
        with half_products(device):
            features = self.network(normalised(images).contiguous(memory_format=torch.channels_last))
        found = [feature.float() for feature in features]
        copied = sum(
            (1 - F.cosine_similarity(to_large(one), other, dim=1)).mean()
            for to_large, one, other in zip(self.maps, found, wanted, strict=True)
        )
        related = sum(
            relation_loss(one, other, PLACES, generator)
            for one, other in zip(kinds_of_patch(found), kinds_of_patch(wanted), strict=True)
        )
        return copied + RELATIONS * related  # type: ignore[return-value]


def kinds_of_patch(stages: Sequence[Tensor]) -> list[Tensor]:
    """What the nearest-neighbour scores compare: stages 1 to 3, and 2 and 3 joined; [N, C, h, w] each."""
    finer = F.interpolate(stages[2], stages[1].shape[-2:], mode="bilinear", align_corners=False)
    return [*stages[:3], torch.cat([stages[1], finer], dim=1)]


def relation_loss(one: Tensor, other: Tensor, places: int, generator: torch.Generator) -> Tensor:
    """How far the cosines among `places` random places of `one` are from those of `other`; [N, C, h, w] each.

    The divergence of the softmax over each place's cosines, plus their squared difference.
    """
    total = one.shape[0] * one.shape[2] * one.shape[3]
    chosen = torch.randperm(total, generator=generator)[:places].to(one.device)
    ours, theirs = (_cosines(features, chosen) for features in (one, other))
    squared = (ours - theirs).square().mean()
    hidden = torch.eye(len(chosen), dtype=torch.bool, device=one.device)
    ours, theirs = ((SHARPNESS * cosines).masked_fill(hidden, -1e4).log_softmax(1) for cosines in (ours, theirs))
    return F.kl_div(ours, theirs, reduction="batchmean", log_target=True) + 5 * squared


def _cosines(features: Tensor, chosen: Tensor) -> Tensor:
    vectors = F.normalize(features.movedim(1, -1).flatten(0, 2)[chosen], dim=1)
    return vectors @ vectors.T
