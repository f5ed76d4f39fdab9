"""What sites do with gradients between two messages, beside plain training: settings and arithmetic."""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

Gradients = Mapping[str, Tensor | None]
"""By tensor name; None where the loss does not depend on the tensor."""
Correction = Callable[[Mapping[str, Tensor], Gradients], Gradients]
"""From the tensors and their gradients to the gradients that the optimiser sees."""


class LocalTraining(BaseModel):
    """How the sites train between two messages; `federation.strategy` says what the server makes of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["plain", "fedprox", "scaffold", "fedbn", "fedrep", "ditto"] = "plain"
    mu: float = Field(0.1, gt=0, description="fedprox, ditto: how hard the received tensors pull")
    head_steps: int | None = Field(
        None, ge=1, description="fedrep: a round's steps for the local parts, before the others move; null = half"
    )
    fine_tune: int = Field(0, ge=0, description="steps of every site on the last model, which then stays there")

    def steps_of_head(self, local_steps: int) -> int:
        """FedRep: how many of a round's steps go to the local parts."""
        return max(1, local_steps // 2) if self.head_steps is None else self.head_steps


def uncorrected(tensors: Mapping[str, Tensor], gradients: Gradients) -> Gradients:
    """Plain training."""
    return gradients


def proximal(start: Mapping[str, Tensor], mu: float) -> Correction:
    """FedProx (Li et al., 2020): the gradient of loss + mu/2 |w − start|². Tensors without a start are not pulled."""

    def correct(tensors: Mapping[str, Tensor], gradients: Gradients) -> Gradients:
        return {
            name: gradient if gradient is None or name not in start else gradient + mu * (tensors[name] - start[name])
            for name, gradient in gradients.items()
        }

    return torch.no_grad()(correct)


class ControlVariates:
    """SCAFFOLD (Karimireddy et al., 2020) for any optimiser: gradients g − c_i + c of one round at one site.

    The site's next variate is the mean of its own gradients over the round's steps. With plain SGD of step size η that
    is the paper's option II, c_i − c + (x − y) / (K η), to rounding.
    """

    def __init__(self, server: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
        """server, own: c and c_i by tensor name; tensors of other names keep their gradients."""
        self._shift = {name: server[name] - own[name] for name in own}
        self._own = own
        self._sums: dict[str, Tensor] = {}
        self._steps = 0

    def __call__(self, tensors: Mapping[str, Tensor], gradients: Gradients) -> Gradients:
        """The corrected gradients; what they were is remembered."""
        self._steps += 1
        corrected = dict(gradients)
        for name, gradient in gradients.items():
            if gradient is not None and name in self._shift:
                self._sums[name] = self._sums[name] + gradient if name in self._sums else gradient.clone()
                corrected[name] = gradient + self._shift[name]
        return corrected

    def next(self) -> dict[str, Tensor]:
        """c_i after this round: as it was where nothing was trained."""
        trained = {name: total / self._steps for name, total in self._sums.items()}
        return {name: trained.get(name, variate) for name, variate in self._own.items()}
