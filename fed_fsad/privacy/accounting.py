"""What full-batch Gaussian releases cost: closed-form composition, no bound and no sampling involved.

T releases of a sum in which one record counts at most 1, each with noise of standard deviation σ, are together exactly
as private as one release with noise 1/μ, where μ² = Σ T/σ² (Dong, Roth & Su 2022, Corollary 3.3). What μ means in ε and
δ is Balle & Wang 2018, Theorem 8. Everything is rounded against the user: ε, δ and σ are never understated.
"""

import math
from collections.abc import Callable

from scipy.special import log_ndtr

_ROUNDING = 4e-16
_MARGIN = 1 + 1e-9


def gaussian_delta(mu: float, epsilon: float) -> float:
    """δ of the μ-Gaussian mechanism at ε >= 0: Φ(μ/2 - ε/μ) - exp(ε)·Φ(-μ/2 - ε/μ)."""
    return math.exp(_log_delta(mu, epsilon))


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The smallest ε for which the μ-Gaussian mechanism is (ε, δ)-private; 0 < δ < 1."""
    limit = math.log(delta)
    return _smallest(lambda epsilon: _log_delta(mu, epsilon) <= limit)


def noise_for(epsilon: float, delta: float, releases: int) -> float:
    """The noise multiplier σ with which `releases` full-batch releases together are (ε, δ)-private.

    σ carries a margin of 1e-9, so that adding up the releases one by one never exceeds ε by rounding.
    """
    limit = math.log(delta)
    single = _smallest(lambda sigma: sigma > 0 and _log_delta(1 / sigma, epsilon) <= limit)
    return single * math.sqrt(releases) * _MARGIN


def mu_squared(releases: int, sigma: float) -> float:
    """What `releases` releases with noise multiplier σ > 0 add to μ²."""
    return releases / sigma**2


def printed(epsilon: float) -> str:
    """ε >= 0 in three digits, rounded up: what is said is never less than what was spent (to nine digits)."""
    if epsilon == 0:
        return "0"
    epsilon = max(epsilon, 1e-9)
    place = 10.0 ** (math.floor(math.log10(epsilon)) - 2)
    return f"{math.ceil(epsilon / place * (1 - 1e-9)) * place:.3g}"


def _log_delta(mu: float, epsilon: float) -> float:
    if mu == 0:
        return -math.inf
    inside = float(log_ndtr(mu / 2 - epsilon / mu))
    outside = epsilon + float(log_ndtr(-mu / 2 - epsilon / mu))
    # The two may agree to the last digit: their gap is widened by its rounding error, which can only overstate δ.
    gap = max(inside - outside, 0.0) + _ROUNDING * max(1.0, abs(inside))
    return inside + math.log(-math.expm1(-gap))


def _smallest(holds: Callable[[float], bool]) -> float:
    """The smallest x >= 0 at which a condition that stays true once true holds, rounded up."""
    if holds(0.0):
        return 0.0
    low, high = 0.0, 1.0
    while not holds(high):
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
