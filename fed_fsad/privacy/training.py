"""Private local training: clipped and noised, paid for in the ledger before anything leaves."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from fed_fsad.data.features import Rows
from fed_fsad.data.samples import Sample
from fed_fsad.errors import PolicyRefusal
from fed_fsad.methods.local import Correction, uncorrected
from fed_fsad.methods.method import Method, TrainingSettings
from fed_fsad.methods.training import OnStep, moving, optimiser
from fed_fsad.privacy.admission import Feasibility, admit_left_over, admit_records, plan_noise
from fed_fsad.privacy.gradients import private_gradient, select_records
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.lines import Request
from fed_fsad.privacy.noise import Noise, drawn
from fed_fsad.privacy.policy import Policy
from fed_fsad.privacy.records import Records, partition_records, private_episode
from fed_fsad.privacy.release import Outbox, release

log = logging.getLogger(__name__)

SPLIT_SEED = 0
"""The record split depends on names alone and outlives runs, so no server's seed may change it."""


@dataclass(frozen=True)
class Books:
    """What a private release is entered in: the hospital's policy, its open ledger, and its outbox."""

    policy: Policy
    ledger: Ledger
    outbox: Outbox


@dataclass(frozen=True)
class Plan:
    """What a run will ask of this site, from which σ follows: rounds in all, and what is trained in each.

    rates: of every method, the probability with which a record enters one of its batches.
    """

    rounds: int
    rates: tuple[float, ...]


def site_records(method: Method, samples: Sequence[Sample], policy: Policy) -> Records:
    """The site's privacy records for a method. Raises PolicyRefusal as `partition_records`."""
    return partition_records(samples, method.episode, SPLIT_SEED, policy.unit)


def private_records(
    method: Method, parts: Collection[str], samples: Sequence[Sample], policy: Policy
) -> tuple[Records, int, Feasibility]:
    """The records that train `parts` under the policy, how many scalars those are, and whether noise leaves anything
    to learn. Raises PolicyRefusal when it does not.
    """
    if method.mixes_images:
        raise PolicyRefusal(
            "images_mixed", f"{method.name} lets one image change another's gradient: set norm: group for BatchNorm"
        )
    records = site_records(method, samples, policy)
    dims = sum(tensor.numel() for tensor in noisy(method, parts).values())
    return records, dims, admit_records(policy, records, dims)


def noisy(method: Method, parts: Collection[str]) -> dict[str, Tensor]:
    """What gets gradients and noise: the tensors of `parts` but silent ones, which leave as they came."""
    return {name: tensor for name, tensor in moving(method, parts).items() if name not in method.silent}


def sampling_rate(records: Records, policy: Policy) -> float:
    """The probability with which a record enters a batch: 1, a full batch, up to the policy's expected batch."""
    return min(1.0, policy.expected_batch / len(records))


def train_privately(
    method: Method,
    settings: TrainingSettings,
    rows_of: Callable[[Sequence[Sample]], Rows],
    samples: Sequence[Sample],
    *,
    parts: Collection[str],
    books: Books,
    request: Request,
    plan: Plan,
    noise: Noise,
    correct: Correction = uncorrected,
    on_step: OnStep = lambda done, total: None,
) -> Mapping[str, Tensor]:
    """Train `parts` with example-level DP and return their new values, already charged to the ledger.

    Asked again for the same request, the same bytes return and nothing is charged. correct: what Adam sees of the noisy
    gradients; it must know nothing of the images. Raises PolicyRefusal and
    BudgetSpent; nothing has left then.
    """
    policy, ledger = books.policy, books.ledger
    tensors = moving(method, parts)
    records, dims, feasible = private_records(method, parts, samples, policy)
    if feasible.warning:
        log.warning("%s: %s", method.name, feasible.warning)
    ledger.freeze(method.name, records)
    releases, rate = plan.rounds * policy.steps_per_round, sampling_rate(records, policy)
    sigma = plan_noise(policy, ledger, request.run, releases, plan.rates)
    everything, batch = releases * len(plan.rates), rate * len(records)
    admit_left_over(policy, ledger, sigma=sigma, releases=everything, dims=dims, records=batch)

    def compute() -> Mapping[str, Tensor]:
        rows = rows_of(_members(samples, records))
        _descend(
            method,
            settings,
            rows,
            records,
            noisy(method, parts),
            policy=policy,
            sigma=sigma,
            noise=noise,
            correct=correct,
            on_step=on_step,
        )
        return {name: tensor.detach() for name, tensor in tensors.items()}

    released = release(
        ledger,
        books.outbox,
        request,
        releases=policy.steps_per_round,
        sigma=sigma,
        rate=rate,
        secure=noise.secure,
        compute=compute,
    )
    return {name: released[name] for name in tensors}


def _members(samples: Sequence[Sample], records: Records) -> list[Sample]:
    wanted = {name for record in records for name in record}
    return [sample for sample in samples if sample.id in wanted]


def _descend(
    method: Method,
    settings: TrainingSettings,
    rows: Rows,
    records: Records,
    tensors: dict[str, Tensor],
    *,
    policy: Policy,
    sigma: float,
    noise: Noise,
    correct: Correction,
    on_step: OnStep,
) -> None:
    """Adam on noisy gradients: whatever it does with them is post-processing and costs no privacy."""
    episode = private_episode(rows, records, method.episode.supports)
    rate = sampling_rate(records, policy)
    adam = optimiser(tensors, settings)
    for step in range(policy.steps_per_round):
        batch = episode if rate == 1 else select_records(episode, drawn(noise, len(records), rate))
        found = private_gradient(
            method,
            batch,
            records=rate * len(records),
            clip_norm=policy.clip_norm,
            noise_multiplier=sigma,
            noise=noise,
            names=list(tensors),
        )
        for name, gradient in correct(tensors, found.gradients).items():
            tensors[name].grad = gradient
        adam.step()
        on_step(step + 1, policy.steps_per_round)
        clipped = 100 * found.clipped_fraction
        log.info("%s: %.0f %% of the records clipped, %d invalid", method.name, clipped, found.invalid_records)
