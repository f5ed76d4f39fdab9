"""Private gradients of real methods the slow way: every record by itself, nothing kept, nothing shared."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fed_fsad.data.episodes import Episode
from fed_fsad.data.features import Rows
from fed_fsad.methods.method import Method
from fed_fsad.privacy.gradients import clipped_sum
from fed_fsad.privacy.records import Records, private_episode


def slow_gradients(method: Method, rows: Rows, records: Records, names: Sequence[str]) -> list[Tensor]:
    """Per record the flat gradient of its mean loss, from an episode that holds nothing else, in float64."""
    found = []
    for record in records:
        alone = rows.select([i for i, sample in enumerate(rows.samples) if sample.id in record])
        loss = method.losses(private_episode(alone, (record,), method.episode.supports)).mean()
        tensors = [method.trainable()[name] for name in names]
        gradients = torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)
        found.append(torch.cat([g.flatten() for g in gradients]).double())
    return found


def clipped(gradients: Sequence[Tensor], clip_norm: float) -> Tensor:
    """Σ g·min(1, C/|g|)."""
    return torch.stack([g * min(1.0, clip_norm / float(g.norm())) for g in gradients if g.norm() > 0]).sum(dim=0)


def flat_sum(method: Method, episode: Episode, clip_norm: float, names: Sequence[str]) -> Tensor:
    """What the code under test makes of it, flat, in float64."""
    total = clipped_sum(method, episode, clip_norm, names).total
    return torch.cat([total[name].flatten() for name in names]).double()


def largest_shift(method: Method, rows: Rows, records: Records, clip_norm: float, names: Sequence[str]) -> float:
    """How far removing one record moves the clipped sum at most, in units of C."""
    supports = method.episode.supports
    whole = flat_sum(method, private_episode(rows, records, supports), clip_norm, names)
    left = (tuple(other for other in records if other != gone) for gone in records)
    shifts = [whole - flat_sum(method, private_episode(rows, some, supports), clip_norm, names) for some in left]
    return max(float(shift.norm()) for shift in shifts) / clip_norm
