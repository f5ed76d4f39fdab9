"""Whether a hospital takes part in what a server asks, and in which sentence it states its guarantee."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fed_fsad.errors import BudgetSpent, PolicyRefusal
from fed_fsad.privacy.accounting import noise_for, printed
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.policy import Policy
from fed_fsad.privacy.records import Records

_RHO_WARNING = 1.0


@dataclass(frozen=True)
class Feasibility:
    """Whether noise leaves anything to learn. warning: one sentence for the hospital's log, or None."""

    rho: float
    warning: str | None


def rho(epsilon: float, delta: float, dims: int, records: int) -> float:
    """Length of the noise against the longest possible mean gradient: σ(ε, δ)·√d / n, d trained scalars, n records.

    Below about 0.5 most of the gain of training stays, above 3 noise does more harm than training does good (ours).
    """
    return noise_for(epsilon, delta, 1) * math.sqrt(dims) / records


def admit_request(policy: Policy, method: str, parts: Sequence[str], cohort: int) -> tuple[str, ...]:
    """The parts of `method` that may be trained and sent in a round of `cohort` sites.

    Raises PolicyRefusal when that is none, or when the round has too few sites.
    """
    if cohort < policy.smallest_cohort:
        raise PolicyRefusal(
            "cohort_too_small",
            f"the round has {cohort} sites and the policy asks for {policy.smallest_cohort}: invite more sites",
        )
    allowed = policy.allowed_parts(method, parts)
    if not allowed:
        raise PolicyRefusal(
            "method_forbidden", f"the policy allows no part of {method}: list its parts under methods to take part"
        )
    return allowed


def admit_records(policy: Policy, records: Records, dims: int) -> Feasibility:
    """Whether `records` suffice to train `dims` scalars with the policy's budget. Raises PolicyRefusal if not."""
    least = max(policy.smallest_records, 1)
    if len(records) < least:
        raise PolicyRefusal(
            "too_few_records", f"the site has {len(records)} privacy records and needs {least}: add images"
        )
    images = sum(map(len, records))
    if policy.delta * images >= 1:
        raise PolicyRefusal(
            "delta_too_large",
            f"delta {policy.delta:g} is not below 1 / {images} images and would protect nobody: "
            f"set it to {0.1 / images:.1g} or less",
        )
    found = rho(policy.epsilon, policy.delta, dims, len(records))
    cause = f"rho is {found:.2f} ({dims} trained scalars on {len(records)} privacy records)"
    if found > policy.largest_rho:
        raise PolicyRefusal(
            "noise_too_large",
            f"{cause} and the policy stops at {policy.largest_rho:g}: train a smaller part, or add images",
        )
    return Feasibility(found, f"{cause}: expect noise to cost much of the gain" if found > _RHO_WARNING else None)


def plan_noise(policy: Policy, ledger: Ledger, run: str, releases: int, rates: Sequence[float] = (1.0,)) -> float:
    """The noise multiplier σ with which `releases` releases of `run` at each of `rates` fit what others left.

    rates: of each method of the run, the probability with which a record enters its batches.

    It does not depend on how far `run` has come, so a resumed run goes on with the same σ. Raises BudgetSpent.
    Where the policy states the noise, that is taken, and the budget lasts as long as it lasts.
    """
    if policy.noise is not None:
        return max(policy.least_noise, policy.noise)
    return max(policy.least_noise, ledger.noise_for(run, releases, rates))


def admit_left_over(policy: Policy, ledger: Ledger, *, sigma: float, releases: int, dims: int, records: float) -> None:
    """Whether `releases` releases with noise σ still teach `dims` scalars anything on batches of `records` records.

    Noise grows without end as a budget runs out; past the policy's largest rho the budget counts as spent. Raises
    BudgetSpent, or PolicyRefusal when nothing was spent yet and the policy's least noise alone is too much.
    """
    found = sigma / math.sqrt(releases) * math.sqrt(dims) / records
    if found <= policy.largest_rho:
        return
    if not ledger.charges:
        raise PolicyRefusal(
            "noise_too_large",
            f"the planned noise has rho {found:.3g} and the policy stops at {policy.largest_rho:g}: "
            "train fewer methods, lower least_noise, or add images",
        )
    raise BudgetSpent(
        f"ε = {ledger.epsilon:.3g} of {policy.epsilon:g} is spent and the rest only buys noise of rho {found:.3g}: "
        "only a larger epsilon in the policy, which weakens the guarantee, would allow more training"
    )


def claim(policy: Policy, ledger: Ledger) -> str:
    """The guarantee as it stands in the ledger, in one sentence with what it does not cover."""
    if ledger.insecure_releases:
        return (
            f"No guarantee: the noise of {ledger.insecure_releases} releases came from a seeded generator, "
            "which anybody with the seed can subtract."
        )
    removed = "all images of one patient" if ledger.unit == "patient" else "one image"
    spent = printed(ledger.epsilon)
    return (
        f"{ledger.unit.capitalize()}-level differential privacy of this site's training images with "
        f"ε = {spent} spent of {policy.epsilon:g} and δ = {ledger.delta:g}, over all rounds, runs and "
        f"methods in its ledger, under removal of {removed} together with the training episode it lies in, "
        f"{_batches(ledger)}; not covered are the number of records, evaluation metrics, local supports and "
        "thresholds, data preparation that looked at the images, settings tuned on them, and what other sites hold of "
        "the same person."
    )


def _batches(ledger: Ledger) -> str:
    if any(charge.rate < 1 for charge in ledger.charges):
        return "on batches that every record entered by a secret coin of its own (Poisson sampling)"
    return "on full batches (no amplification by sampling or shuffling)"
