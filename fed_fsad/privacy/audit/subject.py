"""Whose promise is audited: a method under a hospital's terms, and what leaves the hospital under them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fed_fsad.methods.training import moving
from fed_fsad.privacy.accounting import gaussian_epsilon, noise_for
from fed_fsad.privacy.audit.ground import Ground, flat
from fed_fsad.privacy.gradients import private_gradient
from fed_fsad.privacy.noise import InsecureSeededNoise, Noise
from fed_fsad.privacy.policy import Policy
from fed_fsad.seeds import derive


@dataclass(frozen=True)
class Subject:
    """A method as some sites train it.

    terms: what those sites are bound to; None where updates leave as they were trained. parts: what of the method
    leaves them. releases: noisy batches of a run in which the method has all of the budget.
    make_noise: from a seed to the noise of a private step, so that an audit can be repeated.
    """

    ground: Ground
    sites: tuple[str, ...]
    terms: Policy | None
    parts: tuple[str, ...]
    releases: int = 1
    make_noise: Callable[[int], Noise] = InsecureSeededNoise

    @property
    def described(self) -> str:
        """Where the method trains, and under which terms, in a few words."""
        where = f"at {', '.join(self.sites)}: {', '.join(self.parts)}"
        if self.terms is None:
            return f"{where}, not private"
        return f"{where}, {self.terms.unit}-level ε = {self.epsilon:.3g} at δ = {self.delta:g}, C = {self.clip_norm:g}"

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors that leave."""
        return tuple(moving(self.ground.method, self.parts))

    @property
    def clip_norm(self) -> float:
        """C; 1 where there are no terms."""
        return 1.0 if self.terms is None else self.terms.clip_norm

    @property
    def delta(self) -> float:
        """δ of the claim; a usual one where nothing is claimed."""
        return 1e-5 if self.terms is None else self.terms.delta

    @property
    def sigma(self) -> float:
        """Noise multiplier of all releases of the run taken for one: T sums with σ tell as much as one with σ/√T.

        0 where there are no terms. A server that sends the same tensors in every round can add the answers up.
        """
        if self.terms is None:
            return 0.0
        whole = noise_for(self.terms.epsilon, self.terms.delta, 1)
        each = max(self.terms.least_noise, self.terms.noise or 0.0)
        return max(whole, each / math.sqrt(self.releases))

    @property
    def mu(self) -> float:
        """μ of the Gaussian guarantee; infinite without terms."""
        return 1 / self.sigma if self.sigma else math.inf

    @property
    def epsilon(self) -> float:
        """ε that is claimed; infinite without terms."""
        return gaussian_epsilon(self.mu, self.delta) if self.sigma else math.inf

    def noise(self, *what: str | int) -> Noise:
        """The noise of the stream called `what`."""
        return self.make_noise(derive(self.ground.seed, "audit", self.ground.method.name, *what))

    def clipped(self, gradients: Tensor) -> Tensor:
        """[R, P] gradients shortened to C where they are longer, in units of C."""
        lengths = gradients.norm(dim=1, keepdim=True)
        return gradients / torch.maximum(lengths, torch.tensor(self.clip_norm))

    def released(self, total: Tensor, noise: Noise) -> Tensor:
        """A sum of clipped gradients [P], in units of C, as it leaves: with what the private step adds to nothing."""
        return total + self.pure_noise(noise, self.names) if self.sigma else total

    def pure_noise(self, noise: Noise, names: tuple[str, ...]) -> Tensor:
        """What the private step makes of a batch without a record, [P], in units of C."""
        added: Mapping[str, Tensor] = private_gradient(
            self.ground.method,
            self.ground.episode(()),
            records=1,
            clip_norm=self.clip_norm,
            noise_multiplier=self.sigma,
            noise=noise,
            names=list(names),
        ).gradients
        return flat([added[name] for name in names]).cpu() / self.clip_norm
