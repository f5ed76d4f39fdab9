"""Learn-to-weight: how much each support of a query counts, one scalar per image, scale and support."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Scale = Literal["sqrt_chw", "sqrt_c"]


class LearnToWeight(nn.Module):
    """A 1x1 convolution per scale makes the keys; queries and values are not projected (D²4FAD, learn-to-weight)."""

    def __init__(self, widths: Sequence[int], scale: Scale) -> None:
        super().__init__()
        convolutions = [nn.Conv2d(width, width, 1) for width in widths]
        for convolution in convolutions:
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        self.phi = nn.ModuleList(convolutions)
        self._scale = scale

    def keys(self, supports: Sequence[Tensor]) -> list[Tensor]:
        """Per scale [K, C, H, W] to the same shape."""
        return [phi(support) for phi, support in zip(self.phi, supports, strict=True)]

    def weights(self, query: Tensor, keys: Tensor) -> Tensor:
        """One scale: query [B, C, H, W] and keys [B, K, C, H, W] to [B, K], softmax_k of <query, key> / scale."""
        products = torch.einsum("bchw,bkchw->bk", query, keys)
        return (products / math.sqrt(query[0].numel() if self._scale == "sqrt_chw" else query.shape[1])).softmax(dim=1)

    def forward(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """One scale: the weighted support of every query, [B, C, H, W]; keys and values are [B, K, C, H, W]."""
        return torch.einsum("bk,bkchw->bchw", self.weights(query, keys), values)
