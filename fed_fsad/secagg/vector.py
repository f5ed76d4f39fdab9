"""Updates as vectors of whole numbers modulo 2³², whose sum is exact: the same bits whatever order they come in.

A coordinate in [-C, C] becomes one of T + 1 steps, rounded to the nearest. With n sites a sum of steps is at most n·T,
which must stay below 2³². Before the coordinates stands one 0 or 1 for each piece: their sum says over how many sites a
piece is averaged.
"""

import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from flwr.common.secure_aggregation.quantization import dequantize
from torch import Tensor

from fed_fsad.fields import MalformedMessage
from fed_fsad.messages import Tensors
from fed_fsad.methods.method import piece_of
from fed_fsad.privacy.hospital import clip_update, flat
from fed_fsad.secagg.crypto import Vector

log = logging.getLogger("fed_fsad.site")


def piece(key: str) -> str:
    """The piece of a flat name: "sdmad|context/tokens" is of "sdmad|context"."""
    method, _, name = key.partition("|")
    return f"{method}|{piece_of(name)}"


@dataclass(frozen=True)
class Quantiser:
    """clip_norm: C, the longest update. target_range: T, steps from -C to C."""

    clip_norm: float
    target_range: int

    @property
    def error(self) -> float:
        """The largest error of one rounded coordinate, and so of a mean of them."""
        return self.clip_norm / self.target_range

    def steps(self, update: Mapping[str, Tensor]) -> dict[str, Vector]:
        """The update clipped over all its tensors jointly and rounded, each tensor flat; its length is at most C even
        after rounding, which moves d coordinates by C·√d / T at most.
        """
        dims = sum(tensor.numel() for tensor in update.values())
        longest = max(0.0, self.clip_norm - self.error * math.sqrt(dims))
        clipped, length = clip_update(update, longest)
        if length > longest:
            log.warning("the update is %.3g long and was shortened to clip_norm %.3g", length, self.clip_norm)
        scale = self.target_range / (2 * self.clip_norm)
        values = {name: tensor.double().cpu().numpy().reshape(-1) for name, tensor in clipped.items()}
        return {name: np.rint((value + self.clip_norm) * scale).astype(np.uint32) for name, value in values.items()}

    def sum_of(self, steps: Vector, count: int) -> Tensor:
        """[N] float64: the sum of `count` updates whose steps add up to `steps`."""
        (once,) = dequantize([steps.astype(np.int64)], self.clip_norm, self.target_range)
        return torch.from_numpy(once - (count - 1) * self.clip_norm)


@dataclass(frozen=True)
class Layout:
    """Where everything stands in the vector. sizes: elements of each tensor by flat name, sorted."""

    sizes: Mapping[str, int]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensors]) -> "Layout":
        """The layout for all the tensors that travel."""
        return cls({name: tensor.numel() for name, tensor in flat(tensors).items()})

    @property
    def pieces(self) -> list[str]:
        """All pieces, sorted; the vector begins with their counts."""
        return sorted({piece(name) for name in self.sizes})

    @property
    def length(self) -> int:
        """Numbers in the vector."""
        return len(self.pieces) + sum(self.sizes.values())

    def places(self) -> dict[str, slice]:
        """Where each tensor lies."""
        start, found = len(self.pieces), {}
        for name, size in self.sizes.items():
            found[name] = slice(start, start + size)
            start += size
        return found

    def fill(self, steps: Mapping[str, Vector]) -> Vector:
        """[length]: the steps of the tensors that were trained, 0 elsewhere. Raises KeyError for an unknown tensor."""
        vector = np.zeros(self.length, dtype=np.uint32)
        trained, places = {piece(name) for name in steps}, self.places()
        vector[: len(self.pieces)] = [name in trained for name in self.pieces]
        for name, values in steps.items():
            vector[places[name]] = values
        return vector

    def blank(self, vector: Vector, left_out: Collection[str]) -> None:
        """Take pieces back out of a filled vector, in place."""
        for i, name in enumerate(self.pieces):
            if name in left_out:
                vector[i] = 0
        for name, place in self.places().items():
            if piece(name) in left_out:
                vector[place] = 0


@dataclass(frozen=True)
class SecureSum:
    """What the server learns of a round. sums: of the clipped updates, float64 in the tensors' shapes, by flat name.
    counts: sites behind each piece, 0 where there is no sum of it.
    """

    sums: Mapping[str, Tensor]
    counts: Mapping[str, int]

    @property
    def left_out(self) -> list[str]:
        """Pieces that too few sites have trained."""
        return [name for name, count in self.counts.items() if not count]

    def mean(self) -> dict[str, Tensor]:
        """Mean update by flat name, float64."""
        return {name: total / self.counts[piece(name)] for name, total in self.sums.items()}


def read_sum(
    vector: Vector, layout: Layout, quantiser: Quantiser, *, sites: int, smallest: int, current: Mapping[str, Tensors]
) -> SecureSum:
    """The sum behind an unmasked vector of `sites` sites, none of whose pieces fewer than `smallest` sites trained.

    Raises MalformedMessage when it cannot be a sum of that many clipped updates: masks that did not cancel leave
    uniform numbers, which are none.
    """
    counts = dict(zip(layout.pieces, map(int, vector[: len(layout.pieces)]), strict=True))
    if any(count > sites or 0 < count < smallest for count in counts.values()):
        raise MalformedMessage("the unmasked vector counts more sites than took part, or too few of them")
    sums: dict[str, Tensor] = {}
    squares = dict.fromkeys(layout.pieces, 0.0)
    tensors = flat(current)
    for name, place in layout.places().items():
        count = counts[piece(name)]
        if bool((vector[place] > count * quantiser.target_range).any()):
            raise MalformedMessage(f"the unmasked sum of {name} is out of range")
        if count:
            total = quantiser.sum_of(vector[place], count)
            squares[piece(name)] += float(total.square().sum())
            sums[name] = total.reshape(tensors[name].shape)
    for name, square in squares.items():
        if math.sqrt(square) > counts[name] * quantiser.clip_norm * (1 + 1e-9):
            raise MalformedMessage(f"the unmasked sum of {name} is longer than {counts[name]} clipped updates can be")
    return SecureSum(sums, counts)
