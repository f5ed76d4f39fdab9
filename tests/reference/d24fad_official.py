"""The public D²4FAD code's training step and score as a plain loop, from the formulas; shares no code with the project.

The student is read as a list of its tensors in the order in which they are used. Every image is encoded and decoded
in the call that the public code would do it in: the queries of a batch, then all first supports, all second ones, ...
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tests.reference.d24fad import Array, anomaly_map, distance_map

Stages = tuple[Tensor, Tensor, Tensor, Tensor]
MOMENTUM, EPS = 0.1, 1e-5


@dataclass(frozen=True)
class Plain:
    """teacher: images to f1, f2, f3, e4. student: its tensors, BatchNorm's running ones included. blocks: per stage,
    deepest first. bottleneck: else two 3x3 convolutions. phi: weight [C, C] and bias [C] per scale.
    """

    teacher: Callable[[Tensor], Stages]
    student: list[Tensor]
    blocks: tuple[int, int, int]
    bottleneck: bool
    phi: list[tuple[Tensor, Tensor]]

    def decode(self, e4: Tensor, training: bool) -> list[Tensor]:
        """e4 [B, ...] to the student's f1, f2, f3."""
        left = iter(self.student)
        x, found = e4, []
        for count in self.blocks:
            for block in range(count):
                y = norm(convolve(x, next(left)), left, training).relu() if self.bottleneck else x
                y = norm(double(y, next(left)) if block == 0 else convolve(y, next(left)), left, training).relu()
                y = norm(convolve(y, next(left)), left, training)
                x = (y + (norm(double(x, next(left)), left, training) if block == 0 else x)).relu()
            found.insert(0, x)
        assert next(left, None) is None
        return found

    def weighted(self, scale: int, query: Tensor, supports: Sequence[Tensor]) -> Tensor:
        """One query [C, H, W], one scale: Σ_j w_j s_j with w = softmax_j(<q, phi(s_j)> / sqrt(C))."""
        weight, bias = self.phi[scale]
        keys = [torch.tensordot(weight, support, dims=1) + bias[:, None, None] for support in supports]
        scaled = torch.stack([(query * key).sum() for key in keys]) / math.sqrt(len(query))
        return sum((w * s for w, s in zip(scaled.softmax(0), supports, strict=True)), torch.zeros_like(query))

    def loss(self, queries: Tensor, supports: Sequence[Tensor], tsd_weight: float) -> Tensor:
        """L_ssd + λ L_tsd, mean over B queries [B, 3, S, S]; supports: K batches [B, 3, S, S]. Running ones move."""
        *targets, e4 = self.teacher(queries)
        decoded = self.decode(e4, training=True)
        others = [self.decode(self.teacher(batch)[3], training=True) for batch in supports]
        total = torch.zeros((), dtype=queries.dtype)
        for scale in range(3):
            for row in range(len(queries)):
                query = decoded[scale][row]
                mixed = self.weighted(scale, query, [other[scale][row] for other in others])
                total = total + (1 - cosine(query, mixed)) + tsd_weight * (1 - cosine(targets[scale][row], query))
        return total / len(queries)

    @torch.no_grad()
    def map(self, image: Tensor, supports: Tensor) -> Array:
        """The anomaly map of one image [3, S, S] given supports [K, 3, S, S], running statistics in use."""
        query = [scale[0] for scale in self.decode(self.teacher(image[None])[3], training=False)]
        others = [self.decode(self.teacher(one[None])[3], training=False) for one in supports]
        distances = []
        for scale in range(3):
            mixed = self.weighted(scale, query[scale], [other[scale][0] for other in others])
            distances.append(distance_map(query[scale].double().numpy(), mixed.double().numpy()))
        return anomaly_map(distances, image.shape[-1])


def convolve(x: Tensor, kernel: Tensor) -> Tensor:
    """A convolution that keeps height and width, as a sum over the kernel's places."""
    side = kernel.shape[-1]
    padded = torch.nn.functional.pad(x, (side // 2,) * 4)
    height, width = x.shape[-2:]
    total = torch.zeros(len(x), len(kernel), height, width, dtype=x.dtype)
    for top, left in np.ndindex(side, side):
        seen = padded[:, :, top : top + height, left : left + width]
        total = total + torch.einsum("oi,bihw->bohw", kernel[:, :, top, left], seen)
    return total


def double(x: Tensor, kernel: Tensor) -> Tensor:
    """A transposed convolution of kernel and stride 2, kernel [inputs, outputs, 2, 2]: every cell becomes four."""
    cells = torch.einsum("bihw,ioyx->bohywx", x, kernel)
    return cells.flatten(2, 3).flatten(3, 4)


def norm(x: Tensor, left: Iterator[Tensor], training: bool) -> Tensor:
    """BatchNorm by hand; in training the running mean and (unbiased) variance move by a tenth."""
    weight, bias, mean, variance, _ = (next(left) for _ in range(5))
    used_mean, used_variance = mean, variance
    if training:
        used_mean, used_variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        count = x.numel() // x.shape[1]
        with torch.no_grad():
            mean.mul_(1 - MOMENTUM).add_(MOMENTUM * used_mean)
            variance.mul_(1 - MOMENTUM).add_(MOMENTUM * used_variance * count / (count - 1))
    scaled = (x - used_mean[:, None, None]) / (used_variance[:, None, None] + EPS).sqrt()
    return scaled * weight[:, None, None] + bias[:, None, None]


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Of two tensors seen as vectors."""
    return (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()


def adam_step(value: Tensor, gradient: Tensor, lr: float) -> Tensor:
    """Adam's first step, where both bias-corrected moments are the gradient's own, whatever the betas."""
    return value - lr * gradient / ((gradient * gradient).sqrt() + 1e-8)
