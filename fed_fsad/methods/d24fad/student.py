"""The student: a decoder that mirrors the teacher, from its deepest stage back to its first (Deng and Li 2022)."""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from fed_fsad.methods.d24fad.teacher import Anatomy

Norm = Callable[[int], nn.Module]
CHANNELS_PER_GROUP = 8
MOMENTUM = 0.1
"""BatchNorm's, PyTorch's default."""


def group_norm(channels: int) -> nn.Module:
    """Groups of eight channels, or as few more as divide them: a row's features depend on that row alone (ours)."""
    most = max(1, channels // CHANNELS_PER_GROUP)
    return nn.GroupNorm(next(groups for groups in range(most, 0, -1) if channels % groups == 0), channels)


NORMS: dict[str, Norm] = {"group": group_norm, "batch": nn.BatchNorm2d}


def conv(inputs: int, outputs: int, kernel: int) -> nn.Module:
    """A convolution that keeps height and width."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)


def up(inputs: int, outputs: int) -> nn.Module:
    """A transposed convolution that doubles height and width."""
    return nn.ConvTranspose2d(inputs, outputs, kernel_size=2, stride=2, bias=False)


class Block(nn.Module):
    """A residual block: [B, inputs, H, W] to [B, width, H, W], or to [B, width, 2H, 2W] when `upsample`.

    squeeze None: two convolutions, as in a BasicBlock; else a bottleneck whose inner width is width / squeeze.
    """

    def __init__(self, inputs: int, width: int, squeeze: int | None, upsample: bool, norm: Norm) -> None:
        super().__init__()
        inner = width if squeeze is None else width // squeeze
        before = inputs if squeeze is None else inner
        resize = up(before, inner) if upsample else conv(before, inner, 3)
        layers: list[nn.Module] = [resize, norm(inner), nn.ReLU()]
        if squeeze is None:
            layers += [conv(inner, width, 3), norm(width)]
        else:
            layers = [conv(inputs, inner, 1), norm(inner), nn.ReLU(), *layers, conv(inner, width, 1), norm(width)]
        self.body = nn.Sequential(*layers)
        self.shortcut = nn.Sequential(up(inputs, width), norm(width)) if upsample else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))  # type: ignore[no-any-return]


class Student(nn.Module):
    """Three stages of blocks, each stage's first block upsampling; its input is e4 with nothing between."""

    def __init__(self, anatomy: Anatomy, norm: Literal["group", "batch"]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(
                Block(inputs, width, anatomy.squeeze, True, NORMS[norm]),
                *(Block(width, width, anatomy.squeeze, False, NORMS[norm]) for _ in range(count - 1)),
            )
            for (inputs, width), count in zip(pairwise(reversed(anatomy.widths)), anatomy.blocks, strict=True)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, e4: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """e4 [N, C4, h, w] to the student's f1, f2, f3: [N, C1, 8h, 8w], [N, C2, 4h, 4w], [N, C3, 2h, 2w]."""
        f3 = self.stages[0](e4)
        f2 = self.stages[1](f3)
        return self.stages[2](f2), f2, f3

    @torch.no_grad()
    def adopt(self, e4: Tensor) -> None:
        """Into eval mode, BatchNorm normalising with the statistics of these images, layer after layer (ours)."""
        norms = self._batch_norms()
        for module in norms:
            module.momentum = 1.0
        self.train()(e4)
        for module in norms:
            module.momentum = MOMENTUM
        self.eval()

    def forget(self) -> None:
        """BatchNorm's running statistics as they are before any training."""
        for module in self._batch_norms():
            module.reset_running_stats()

    @property
    def has_statistics(self) -> bool:
        """Whether every BatchNorm has seen an image; true without BatchNorm."""
        return all(bool(module.num_batches_tracked) for module in self._batch_norms())

    def _batch_norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
