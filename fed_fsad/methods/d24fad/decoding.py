"""An episode as the student sees it: queries, and for each of them its supports with their keys."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fed_fsad.data.episodes import Episode
from fed_fsad.methods.d24fad.weighting import LearnToWeight


@dataclass(frozen=True)
class Decoded:
    """Per scale: queries [B, C, H, W], values and keys [B, K, C, H, W]."""

    queries: Sequence[Tensor]
    values: Sequence[Tensor]
    keys: Sequence[Tensor]


def gathered(
    decoded: Sequence[Tensor], weighting: LearnToWeight, episode: Episode, stop_gradient: bool = False
) -> Decoded:
    """Queries and supports out of the episode's rows, each decoded once (ours); decoded: per scale [N, C, H, W]."""
    values = [feature.detach() for feature in decoded] if stop_gradient else decoded
    keys = weighting.keys(values)
    return Decoded(
        [feature[episode.query] for feature in decoded],
        [value[episode.support] for value in values],
        [key[episode.support] for key in keys],
    )


def apart(student: nn.Module, weighting: LearnToWeight, episode: Episode, stop_gradient: bool) -> Decoded:
    """The public code's order: the queries in one call, then every query's k-th support in one call for each k.

    Under BatchNorm in train mode each call has statistics of its own.
    """
    e4 = episode.rows.features["e4"]
    queries = student(e4[episode.query])
    calls = [student(e4[places]) for places in episode.support.T]
    if stop_gradient:
        calls = [[feature.detach() for feature in call] for call in calls]
    keys = [weighting.keys(call) for call in calls]
    return Decoded(queries, _by_scale(calls), _by_scale(keys))


def _by_scale(calls: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """K calls of one tensor per scale to one [B, K, ...] per scale."""
    return [torch.stack(scale, dim=1) for scale in zip(*calls, strict=True)]
