"""What a budget buys: of ε, the noise multiplier and the number of releases, any two give the third."""

import math
from dataclasses import dataclass

from fed_fsad.errors import ConfigError
from fed_fsad.methods.method import Method, part_of
from fed_fsad.privacy.composition import Releases, noise_within, spent

BREAK_EVEN = 2.0
"""ρ at which noise takes about what training gives (ours)."""
WORTH_IT = 0.5
"""ρ below which most of the gain of training stays (ours)."""


@dataclass(frozen=True)
class Budget:
    """`releases` noisy sums with noise multiplier `sigma` are together (`epsilon`, `delta`)-private.

    rate: the probability with which a record enters a batch; 1 is a full batch.
    """

    epsilon: float
    delta: float
    sigma: float
    releases: int
    rate: float = 1.0


def complete(
    epsilon: float | None, sigma: float | None, releases: int | None, delta: float, rate: float = 1.0
) -> Budget:
    """The budget that two of the three fix.

    Raises ConfigError when it is not two of them, when one is out of its range, or when ε does not buy one release.
    """
    for name, value in (("epsilon", epsilon), ("sigma", sigma), ("rounds", releases)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ConfigError(f"{name} is {value:g}; give a number above 0")
    if not 0 < delta < 1:
        raise ConfigError(f"delta is {delta:g}; give a number between 0 and 1, well below 1 / number of images")
    match epsilon, sigma, releases:
        case None, noise, count if noise is not None and count is not None:
            pass
        case budget, None, count if budget is not None and count is not None:
            found = noise_within(budget, delta, (), count, (rate,))
            assert found is not None, "a budget above 0 of which nothing is spent"
            noise = found
        case budget, noise, None if budget is not None and noise is not None:
            count = _affordable(budget, noise, delta, rate)
        case _:
            raise ConfigError("a plan needs two of epsilon, sigma and rounds; leave out the one you want to know")
    return Budget(spent([Releases(count, noise, rate)], delta), delta, noise, count, rate)


def scalars_by_part(method: Method) -> dict[str, int]:
    """How many scalars each trainable part has."""
    sizes: dict[str, int] = {}
    for name, tensor in method.trainable().items():
        sizes[part_of(name)] = sizes.get(part_of(name), 0) + tensor.numel()
    return sizes


def rho_of(budget: Budget, dims: int, records: int) -> float:
    """Length of the noise against the longest possible mean gradient over all releases: σ·√(d / T) / (rate · R)."""
    return budget.sigma * math.sqrt(dims / budget.releases) / (budget.rate * records)


def records_for(budget: Budget, dims: int, rho: float) -> int:
    """The smallest number of records with which ρ is at most `rho`."""
    return math.ceil(rho_of(budget, dims, 1) / rho)


def expectation(rho: float) -> str:
    """What to expect of training at ρ, in a few words (a rule of thumb from one task, ours)."""
    if rho <= WORTH_IT:
        return "most of the gain stays"
    return "noise costs much of the gain" if rho <= BREAK_EVEN else "noise harms; leave it untrained"


def _affordable(epsilon: float, sigma: float, delta: float, rate: float) -> int:
    def fits(releases: int) -> bool:
        return spent([Releases(releases, sigma, rate)], delta) <= epsilon

    if not fits(1):
        least = noise_within(epsilon, delta, (), 1, (rate,))
        raise ConfigError(f"noise {sigma:g} is too little for one release at epsilon {epsilon:g}; take {least:.3g}")
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
