"""The frozen teacher: a network of four stages with its input normalisation and a name for its exact weights."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from fed_fsad.methods.d24fad.resnet import MEAN, STD

Stages = tuple[Tensor, Tensor, Tensor, Tensor]
Normalisation = tuple[Sequence[float], Sequence[float]]
"""Mean and deviation per channel of an image in [0, 1]."""
IMAGENET: Normalisation = (MEAN, STD)
NONE: Normalisation = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Anatomy:
    """What a student needs to mirror a network.

    widths: channels of stages 1-4. blocks: residual blocks of the mirrored stages, deepest first. squeeze: channels of
    a stage over the inner width of its bottlenecks; None when its blocks are BasicBlocks.
    """

    widths: tuple[int, int, int, int]
    blocks: tuple[int, int, int]
    squeeze: int | None


class Teacher:
    """A network in eval mode whose parameters take no gradient, and its input's normalisation before it.

    network: [B, 3, S, S], normalised, to four stages. anatomy: its shape. name: architecture and variant, which the
    tensors alone do not tell. normalisation: of its input.
    """

    def __init__(
        self, network: nn.Module, anatomy: Anatomy, name: str, normalisation: Normalisation = IMAGENET
    ) -> None:
        self._network = network.eval().requires_grad_(False)
        self.anatomy = anatomy
        self._mean = torch.tensor(normalisation[0]).reshape(1, 3, 1, 1)
        self._std = torch.tensor(normalisation[1]).reshape(1, 3, 1, 1)
        self.hash = _hash(name, network, self._mean, self._std)

    def to(self, device: torch.device) -> Self:
        """Moved there; images must then lie there too. Its hash stays."""
        self._network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._mean, self._std = self._mean.to(device), self._std.to(device)
        return self

    @torch.no_grad()
    def stages(self, images: Tensor) -> Stages:
        """[B, 3, S, S] in [0, 1] to f1, f2, f3 (what the student must give) and e4 (what it is given), no gradient."""
        stages: Stages = self._network((images - self._mean) / self._std)
        return stages


def _hash(name: str, network: nn.Module, *others: Tensor) -> str:
    """SHA-256 over the network's name, every float tensor by name, and the normalisation."""
    digest = hashlib.sha256(name.encode())
    for key, value in sorted(network.state_dict().items()):
        if value.is_floating_point():
            digest.update(f"{key}{tuple(value.shape)}".encode())
            digest.update(value.contiguous().numpy().tobytes())
    for value in others:
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()
