"""Plain local training: what a hospital does between two messages when no privacy is asked for."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from fed_fsad.data.episodes import sample_episode
from fed_fsad.data.features import Rows
from fed_fsad.errors import Diverged
from fed_fsad.methods.local import Correction, uncorrected
from fed_fsad.methods.method import Method, TrainingSettings, part_of
from fed_fsad.seeds import numpy_stream

OnStep = Callable[[int, int], None]
"""Called with (steps done, steps in all)."""


@dataclass(frozen=True)
class TrainingLog:
    """Mean loss over the steps, and the method's diagnostics on the last batch."""

    loss: float
    diagnostics: dict[str, float]


def moving(method: Method, parts: Collection[str]) -> dict[str, Tensor]:
    """The trainable tensors of `parts`, by name."""
    return {name: tensor for name, tensor in method.trainable().items() if part_of(name) in parts}


def optimiser(tensors: dict[str, Tensor], settings: TrainingSettings) -> torch.optim.Adam:
    """Adam as both papers use it, with fresh moments: nothing of it survives a round."""
    return torch.optim.Adam(list(tensors.values()), lr=settings.lr, betas=settings.betas)


def train(
    method: Method,
    settings: TrainingSettings,
    rows: Rows,
    *,
    parts: Collection[str],
    stream: tuple[int, str, int],
    steps: int | None = None,
    correct: Correction = uncorrected,
    on_step: OnStep = lambda done, total: None,
) -> TrainingLog:
    """Train `parts` of a method in place on a site's frozen features.

    stream: (seed, site, round), which names the episodes' random stream. steps: at least 1; settings.local_steps
    unless given. correct: what Adam sees of the gradients. Raises Diverged when the loss stops being a number,
    DataError when an episode cannot be drawn.
    """
    seed, site, round_ = stream
    rng = numpy_stream(seed, "episodes", method.name, site, round_)
    untouched = method.untouched(rows.samples)
    tensors = {name: tensor for name, tensor in moving(method, parts).items() if name not in untouched}
    adam = optimiser(tensors, settings)
    losses: list[Tensor] = []
    steps = settings.local_steps if steps is None else steps
    for step in range(steps):
        episode = sample_episode(rows, method.episode, rng)
        loss = method.losses(episode).mean()
        gradients = torch.autograd.grad(loss, list(tensors.values()), allow_unused=True)
        for name, gradient in correct(tensors, dict(zip(tensors, gradients, strict=True))).items():
            tensors[name].grad = gradient
        adam.step()
        losses.append(loss.detach())  # looked at after the last step: no step of a GPU waits for the host
        on_step(step + 1, steps)
    values = torch.stack(losses).tolist()
    for value in values:
        if not math.isfinite(value):
            raise Diverged(f"{method.name}: the training loss is {value}; lower methods.{method.name}.lr")
    return TrainingLog(sum(values) / steps, method.diagnostics(episode))
