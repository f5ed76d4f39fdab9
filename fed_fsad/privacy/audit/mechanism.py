"""Does the private step hide what it claims? Canaries in it, and a lower bound on ε with confidence.

A Dirac canary is a record whose gradient lies along one coordinate of its own: the one that noise hides worst (Nasr et
al. 2023). Half of the canaries are in the batch; whoever sees the noisy gradient guesses which. How often he is wrong
bounds μ, and with it ε, from below. Such a bound can refute a claim and never prove it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy.stats import beta, norm
from torch import Tensor

from fed_fsad.data.episodes import Episode, EpisodeSpec
from fed_fsad.data.features import Features, Rows
from fed_fsad.data.samples import Image, Mask, Sample
from fed_fsad.methods.method import Method, Protocol, Scores, SupportBank
from fed_fsad.privacy.accounting import gaussian_epsilon, noise_for
from fed_fsad.privacy.gradients import private_gradient
from fed_fsad.privacy.noise import Noise

LOUD = 1e3
"""How much longer a canary's gradient is than C: a step that does not clip is found out too."""
NAME = "canaries/weight"


@dataclass(frozen=True)
class MechanismAudit:
    """claimed: ε of the step. found: ε that the guesses prove at least, with probability `confidence`.

    missed, false: canaries in the batch that were not found, and out of it that were, out of `canaries` each.
    """

    claimed: float
    found: float
    delta: float
    confidence: float
    canaries: int
    missed: int
    false: int

    @property
    def refuted(self) -> bool:
        """Whether the step hides less than it claims."""
        return self.found > self.claimed


@dataclass(frozen=True)
class ScaledNoise:
    """A defect to be found: noise `factor` times as strong as it should be."""

    noise: Noise
    factor: float
    secure: bool = False

    def normal(self, shape: Sequence[int]) -> Tensor:
        """See `Noise.normal`."""
        return self.factor * self.noise.normal(shape)


class Canaries(Method):
    """Record i's gradient is `LOUD` times C along coordinate i, whatever the other records are."""

    name = "canaries"
    protocol: ClassVar[Protocol] = "detection"
    image_size = 1
    model_id = "canaries"
    episode = EpisodeSpec(supports=0, normals_only=False, batch=1)

    def __init__(self, coordinates: int, clip_norm: float) -> None:
        self._weight = torch.zeros(coordinates).requires_grad_()
        self._length = LOUD * clip_norm

    def trainable(self) -> dict[str, Tensor]:
        """One scalar per canary."""
        return {NAME: self._weight}

    def features(self, images: Tensor) -> Features:
        """Nothing is seen of a canary."""
        return {}

    def losses(self, episode: Episode) -> Tensor:
        """Linear in the canary's own coordinate, [B]."""
        return self._length * self._weight[episode.rows.features["coordinate"][episode.query]]

    def fit_support(self, support: Rows, task: str) -> SupportBank:
        """An empty bank."""
        return SupportBank(task, (), (), {})

    def score(self, features: Features, bank: SupportBank) -> Scores:
        """Nothing is found in a canary."""
        return Scores(torch.zeros(len(features["coordinate"])))

    def embedding(self, features: Features) -> Tensor:
        """The coordinate, [N, 1]."""
        return features["coordinate"][:, None].float()


def mechanism_audit(
    epsilon: float,
    delta: float,
    *,
    noise: Noise,
    canaries: int = 2000,
    clip_norm: float = 1.0,
    confidence: float = 0.95,
) -> MechanismAudit:
    """Attack one full-batch private step that claims (ε, δ) with `canaries` records in it and as many left out.

    The bound is Clopper and Pearson's on both error rates, turned into ε along the curve of Gaussian mechanisms.
    """
    method = Canaries(2 * canaries, clip_norm)
    found = private_gradient(
        method,
        _batch(canaries),
        records=canaries,
        clip_norm=clip_norm,
        noise_multiplier=noise_for(epsilon, delta, 1),
        noise=noise,
        names=[NAME],
    ).gradients[NAME]
    guessed = found * canaries > clip_norm / 2
    missed, false = int((~guessed[:canaries]).sum()), int(guessed[canaries:].sum())
    return MechanismAudit(
        epsilon, _bound(missed, false, canaries, delta, confidence), delta, confidence, canaries, missed, false
    )


def error_rate_above(errors: int, trials: int, confidence: float) -> float:
    """The upper limit of an error rate after `errors` in `trials` (Clopper and Pearson 1934, one-sided)."""
    return 1.0 if errors == trials else float(beta.ppf(confidence, errors + 1, trials - errors))


def _bound(missed: int, false: int, trials: int, delta: float, confidence: float) -> float:
    # Each side may fail with half of what confidence leaves, so both hold together.
    each = 1 - (1 - confidence) / 2
    rates = (error_rate_above(missed, trials, each), error_rate_above(false, trials, each))
    mu = -sum(float(norm.ppf(rate)) for rate in rates)
    return gaussian_epsilon(mu, delta) if mu > 0 else 0.0


@dataclass(frozen=True)
class _NoImage:
    """A canary has no pixels."""

    name: str

    def image(self, size: int) -> Image:
        raise LookupError(f"{self.name} is no image")

    def mask(self, size: int) -> Mask | None:
        return None


def _batch(canaries: int) -> Episode:
    samples = tuple(Sample(f"canary {i}", "canaries", (), None, _NoImage(f"canary {i}")) for i in range(canaries))
    every = torch.arange(canaries)
    return Episode(Rows({"coordinate": every}, samples), every, torch.empty(canaries, 0, dtype=torch.long), every)
