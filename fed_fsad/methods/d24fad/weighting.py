"""Learn-to-weight: how much each support of a query counts, one scalar per image, scale and support."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Scale = Literal["sqrt_chw", "sqrt_c", "learned"]


class LearnToWeight(nn.Module):
    """A 1x1 convolution per scale makes the keys; queries and values are not projected (D²4FAD, learn-to-weight).

    scale: what divides the products; learned is sqrt(C H W) with a factor per scale that is learned (ours).
    """

    def __init__(self, widths: Sequence[int], scale: Scale) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width, width, 1) for width in widths]
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        self.phi = nn.ModuleList(convolutions)
        self._scale = scale
        self.log_factor = nn.Parameter(torch.zeros(len(convolutions))) if scale == "learned" else None

    def keys(self, supports: Sequence[Tensor]) -> list[Tensor]:
        """Per scale [K, C, H, W] to the same shape; a learned factor of the products is in them."""
        keys = [phi(support) for phi, support in zip(self.phi, supports, strict=True)]
        return (
            keys if self.log_factor is None else [f * key for f, key in zip(self.log_factor.exp(), keys, strict=True)]
        )

    def weights(self, query: Tensor, keys: Tensor) -> Tensor:
        """One scale: query [B, C, H, W] and keys [B, K, C, H, W] to [B, K], softmax_k of <query, key> / scale."""
        products = torch.einsum("bchw,bkchw->bk", query, keys)
        return (products / math.sqrt(query.shape[1] if self._scale == "sqrt_c" else query[0].numel())).softmax(dim=1)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """One scale: the weighted support of every query, [B, C, H, W]; keys and values are [B, K, C, H, W]."""
        return torch.einsum("bk,bkchw->bchw", self.weights(query, keys), values)
