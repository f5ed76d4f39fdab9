"""What all releases of an account cost together: full batches in closed form, Poisson-sampled ones by two accountants.

A batch that every record enters by its own secret coin hides more than a full batch with the same noise. How much is
computed numerically, by privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022, in dp-accounting) and
by privacy random variables (Gopi et al. 2021, in Opacus). Both are upper bounds that agree to about 0.01; the larger is
charged, and never more than without sampling.
"""

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from fed_fsad.privacy.accounting import gaussian_epsilon, mu_squared, noise_for

_HOPELESS = 100.0
"""ε above which sampling is not credited: it protects nobody, and the accountants' grids explode."""
_INTERVAL = 1e-3
_PRV_ERROR = 0.005
_STEP = 1e-3


@dataclass(frozen=True)
class Releases:
    """`count` noisy sums with noise multiplier `sigma`, of batches that every record enters with probability `rate`.

    rate 1 is a full batch.
    """

    count: int
    sigma: float
    rate: float = 1.0


Group = tuple[float, float, int]
"""Noise multiplier, sampling rate, number of releases."""


def spent(releases: Iterable[Releases], delta: float) -> float:
    """ε of all releases together at δ, never understated."""
    everything = list(releases)
    unsampled = gaussian_epsilon(_mu(everything), delta)
    groups, mu = _sampled(everything), _mu([own for own in everything if own.rate == 1])
    if not groups or _hopeless(everything, delta):
        return unsampled
    return min(unsampled, max(by_pld(groups, mu, delta), by_prv(groups, mu, delta)))


def noise_within(
    epsilon: float, delta: float, others: Sequence[Releases], count: int, rates: Sequence[float] = (1.0,)
) -> float | None:
    """The noise multiplier σ with which `count` releases at each of `rates` fit into what `others` leave of ε.

    At most 0.2 % larger than need be where a batch is sampled, exact to rounding where none is. None: nothing is left.
    """
    if spent(others, delta) >= epsilon:
        return None
    full = 1.0
    if not _sampled(others):
        left = noise_for(epsilon, delta, 1) ** -2 - _mu(others) ** 2
        if left <= 0:
            return None
        full = math.sqrt(count * len(rates) / left)
        if all(rate == 1 for rate in rates):
            return full
    return _search(epsilon, delta, others, count, rates, full)


def _search(
    epsilon: float, delta: float, others: Sequence[Releases], count: int, rates: Sequence[float], start: float
) -> float:
    def asked(sigma: float) -> list[Releases]:
        return [*others, *(Releases(count, sigma, rate) for rate in rates)]

    def fits(sigma: float) -> bool:
        every = asked(sigma)
        if _hopeless(every, delta):
            return False
        # One accountant leads, the quicker one; the other's bound is higher by the error it allows itself.
        leading = by_pld(_sampled(every), _mu([own for own in every if own.rate == 1]), delta)
        return leading <= max(epsilon - _PRV_ERROR, epsilon / 2)

    high = start
    while not fits(high):
        high *= 2
    low = high / 2
    while fits(low):
        low, high = low / 2, low
    while high > low * (1 + _STEP):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    step = _STEP
    while spent(asked(high), delta) > epsilon:
        high, step = high * (1 + step), 2 * step
    return high


def _mu(releases: Sequence[Releases]) -> float:
    """μ of all releases, as if every batch were full."""
    return math.sqrt(math.fsum(mu_squared(own.count, own.sigma) for own in releases))


def _hopeless(releases: Sequence[Releases], delta: float) -> bool:
    """Whether ε is far beyond use, by the central limit of many sampled releases, which needs no grid."""
    squares = [
        own.count * min(1 / own.sigma**2, own.rate**2 * math.expm1(min(1 / own.sigma**2, 700))) for own in releases
    ]
    return gaussian_epsilon(math.sqrt(math.fsum(squares)), delta) > _HOPELESS


def _sampled(releases: Sequence[Releases]) -> tuple[Group, ...]:
    counts: Counter[tuple[float, float]] = Counter()
    for own in releases:
        if own.rate < 1:
            counts[own.sigma, own.rate] += own.count
    return tuple((sigma, rate, count) for (sigma, rate), count in sorted(counts.items()))


@lru_cache(maxsize=256)
def by_pld(groups: tuple[Group, ...], mu: float, delta: float) -> float:
    """ε of sampled groups after a μ-Gaussian mechanism, by dp-accounting's loss distributions (rounded up)."""
    from dp_accounting.pld import privacy_loss_distribution as pld  # type: ignore[import-untyped]  # takes a second

    parts = [
        pld.from_gaussian_mechanism(sigma, sampling_prob=rate, value_discretization_interval=_INTERVAL).self_compose(n)
        for sigma, rate, n in groups
    ]
    if mu:
        parts.append(pld.from_gaussian_mechanism(1 / mu, value_discretization_interval=_INTERVAL))
    total = parts[0]
    for part in parts[1:]:
        total = total.compose(part)
    return float(total.get_epsilon_for_delta(delta))


@lru_cache(maxsize=256)
def by_prv(groups: tuple[Group, ...], mu: float, delta: float) -> float:
    """ε of sampled groups after a μ-Gaussian mechanism, by Opacus' random variables (their upper bound).

    Infinite where its grid fails: the bound without sampling then stands.
    """
    from opacus.accountants import PRVAccountant  # takes three seconds

    accountant = PRVAccountant()
    accountant.history = [*groups, *([(1 / mu, 1.0, 1)] if mu else [])]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(accountant.get_epsilon(delta, eps_error=_PRV_ERROR))
    except (RuntimeError, ValueError, OverflowError):
        return math.inf
