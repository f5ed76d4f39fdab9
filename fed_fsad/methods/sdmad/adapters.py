"""Shift adapters: small parallel branches beside frozen transformer layers."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fed_fsad.errors import ConfigError
from fed_fsad.seeds import torch_stream

Blocks = nn.ModuleList | nn.Sequential
"""The layers of a transformer."""


def layers_of(layers: str, depth: int) -> tuple[int, ...]:
    """Layer numbers, counted from 1, of "all", "quarters", "last n" or "every n" in a transformer of `depth` layers.

    Raises ConfigError when n is larger than the depth.
    """
    if layers == "quarters":
        return tuple(sorted({math.ceil(depth * quarter / 4) for quarter in range(1, 5)}))
    rule, _, count = layers.partition(" ")
    step = int(count or 1)
    if step > depth:
        raise ConfigError(f"layers {layers!r} do not exist in a transformer of {depth}; name at most {depth}")
    return tuple(range(depth - step + 1, depth + 1)) if rule == "last" else tuple(range(step, depth + 1, step))


class Adapters:
    """The shift adapters of one tower (Guo et al. 2025).

    f_ada = a(W2 a(W1 f_in)), f_out = keep * f_frozen + (1 - keep) * f_ada, with a = LeakyReLU and no bias; f_in is the
    layer's input, f_frozen its own output. keep = 1 is the frozen tower. Initialisation is uniform in
    +-1/sqrt(fan-in) from (seed, part, layer) (ours: a zero W2 would sit on the LeakyReLU's kink).
    """

    def __init__(self, part: str, width: int, bottleneck: int, layers: Sequence[int], keep: float, seed: int) -> None:
        self.layers = tuple(layers)
        self._part = part
        self._keep = keep
        self._down = {layer: _uniform(bottleneck, width, seed, part, layer, "down") for layer in layers}
        self._up = {layer: _uniform(width, bottleneck, seed, part, layer, "up") for layer in layers}

    def named(self) -> dict[str, Tensor]:
        """The parameters as "part/layerN.down" [bottleneck, width] and "part/layerN.up" [width, bottleneck]."""
        return {
            f"{self._part}/layer{layer}.{kind}": weights[layer]
            for layer in self.layers
            for kind, weights in (("down", self._down), ("up", self._up))
        }

    def shift(self, layer: int, entering: Tensor, frozen: Tensor) -> Tensor:
        """[..., width]: the layer's frozen output, shifted where the layer has an adapter."""
        if layer not in self._down:
            return frozen
        inner = F.leaky_relu(F.linear(entering, self._down[layer]))
        return self._keep * frozen + (1 - self._keep) * F.leaky_relu(F.linear(inner, self._up[layer]))


def run_layers(
    blocks: Blocks, x: Tensor, adapters: Adapters | None, first: int = 1, mask: Tensor | None = None
) -> dict[int, Tensor]:
    """[B, L, width] tokens through the frozen layers first..depth, each shifted by its adapter if it has one: what
    leaves every layer, by its number.
    """
    left: dict[int, Tensor] = {}
    for layer, block in enumerate(blocks[first - 1 :], start=first):
        out = block(x, attn_mask=mask)
        x = left[layer] = out if adapters is None else adapters.shift(layer, x, out)
    return left


@contextmanager
def shifted(blocks: Blocks, adapters: Adapters | None) -> Iterator[None]:
    """While this lasts, the layers of a model that runs itself are shifted by their adapters."""

    def hook(layer: int) -> Callable[..., Any]:
        def shift(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any], out: Any) -> Any:
            entering = args[0] if args else kwargs["hidden_states"]
            assert adapters is not None
            if isinstance(out, tuple):
                return adapters.shift(layer, entering, out[0]), *out[1:]
            return adapters.shift(layer, entering, out)

        return shift

    layers = () if adapters is None else adapters.layers
    handles = [blocks[layer - 1].register_forward_hook(hook(layer), with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _uniform(rows: int, columns: int, seed: int, part: str, layer: int, kind: str) -> Tensor:
    draw = torch.rand(rows, columns, generator=torch_stream(seed, "sdmad", part, layer, kind))
    return ((2 * draw - 1) / math.sqrt(columns)).requires_grad_()
