"""Private gradients: clipped record by record, summed, noised, divided by a number that is fixed beforehand."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fed_fsad.data.episodes import Episode
from fed_fsad.methods.method import Method
from fed_fsad.privacy.noise import Noise
from fed_fsad.privacy.vectorised import gradients_at_once

TOGETHER = 16
"""Records whose gradients one vectorised pull-back (vmap) makes off the CPU, whole or through what they share. On a CPU
one at a time is faster (docs/privacy-accounting.md); a GPU waits for launches, which this makes fewer."""
_SLACK = 2e-7
"""By how much less than C a gradient becomes: rounding to float32 must not make it longer again."""


@dataclass(frozen=True)
class ClippedSum:
    """The sum over R records of gradients of norm <= C: what noise must hide one record of.

    total: name to the sum, in the parameter's shape. clipped: records whose gradient was longer than C.
    invalid: records whose gradient held NaN or infinity; they count as zero.
    """

    total: Mapping[str, Tensor]
    records: int
    clipped: int
    invalid: int


@dataclass(frozen=True)
class PrivateGradient:
    """One noisy gradient, by tensor name in the parameters' shapes.

    clipped_fraction and invalid_records carry no noise: they are for the hospital's own log and never travel.
    """

    gradients: Mapping[str, Tensor]
    clipped_fraction: float
    invalid_records: int


def private_gradient(
    method: Method,
    episode: Episode,
    *,
    records: float,
    clip_norm: float,
    noise_multiplier: float,
    noise: Noise,
    names: Sequence[str],
) -> PrivateGradient:
    """One step of DP-SGD (Abadi et al. 2016, Algorithm 1) over every record of `episode`.

    records: the divisor, fixed beforehand (of sampled batches the expected size); dividing by the records really
    present would tell their number.
    names: the trainable tensors that may move. An episode without a record releases pure noise.
    Raises ValueError when two records share an image or a patient: one of them would then count for more than C.
    """
    _refuse_shared_images(episode)
    clipped = clipped_sum(method, episode, clip_norm, names)
    scale = noise_multiplier * clip_norm
    gradients = {
        name: ((value.double().cpu() + scale * noise.normal(value.shape)) / records).to(value)
        for name, value in clipped.total.items()
    }
    return PrivateGradient(gradients, clipped.clipped / max(clipped.records, 1), clipped.invalid)


def clipped_sum(method: Method, episode: Episode, clip_norm: float, names: Sequence[str]) -> ClippedSum:
    """Σ over records of g·min(1, C/|g|); g is the gradient of the record's mean loss over all `names` jointly.

    One pull-back per record, each through a graph of its own, added up in one order: memory holds one gradient however
    large the batch is, the bits depend on nothing but the records, and no batching rule can mistake what a record is.
    """
    parameters = {name: method.trainable()[name] for name in names}
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    clipped = invalid = seen = 0
    on_cpu = all(parameter.device.type == "cpu" for parameter in parameters.values())
    together = 1 if on_cpu else TOGETHER
    for gradients in record_gradients(method, episode, list(parameters.values()), together):
        norm = _norm(gradients)
        seen += 1
        if not math.isfinite(norm):
            invalid += 1
            continue
        factor = clip_norm / norm * (1 - _SLACK) if norm > clip_norm else 1.0
        clipped += norm > clip_norm
        for value, gradient in zip(total.values(), gradients, strict=True):
            value.add_(gradient, alpha=factor)
    return ClippedSum(total, seen, clipped, invalid)


def select_records(episode: Episode, records: Sequence[int]) -> Episode:
    """The part of an episode that belongs to `records`: their queries, and only the rows these look at.

    Records are renumbered 0..R-1 in ascending order of their old number.
    """
    keep = torch.isin(episode.record, torch.as_tensor(records, dtype=torch.long))
    query, support = episode.query[keep], episode.support[keep]
    used, place = torch.unique(torch.cat([query, support.flatten()]), return_inverse=True)
    return Episode(
        rows=episode.rows.select(used.tolist()),
        query=place[: len(query)],
        support=place[len(query) :].reshape(support.shape),
        record=torch.unique(episode.record[keep], return_inverse=True)[1],
    )


def record_gradients(
    method: Method, episode: Episode, parameters: Sequence[Tensor], together: int = 1
) -> Iterator[tuple[Tensor, ...]]:
    """The gradient of every record's mean loss, in the order of their numbers within each task.

    What no image changes is computed once for all records of the same tasks, and pulled back through for `together`
    records at a time: the chain rule, cut where the images come in. Where there is no such thing, `together` records of
    a method that allows it are computed side by side. NaN in one record never reaches another.
    """
    for records in _of_same_tasks(episode):
        first = select_records(episode, records[:1])
        with method.shared(first.rows.samples) as cuts:
            outcomes, leaves = [outcome for outcome, _ in cuts], [leaf for _, leaf in cuts]
            for start in range(0, len(records), together):
                alone = [select_records(episode, [record]) for record in records[start : start + together]]
                if together > 1 and not cuts and (network := method.network) is not None:
                    yield from gradients_at_once(method, network, alone, parameters)
                    continue
                own = [_own(method, record, [*parameters, *leaves]) for record in alone]
                direct, into = [g[: len(parameters)] for g in own], [g[len(parameters) :] for g in own]
                yield from map(_plus, direct, _pulled_back(outcomes, parameters, into)) if cuts else direct


def _own(method: Method, record: Episode, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    loss = method.losses(record).mean()
    return torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)


def _pulled_back(
    outcomes: Sequence[Tensor], parameters: Sequence[Tensor], into: Sequence[Sequence[Tensor]]
) -> list[tuple[Tensor, ...]]:
    """Each record's gradients `into` the outcomes carried on to the parameters; the graph stays for the next ones."""
    if len(into) == 1:
        return [torch.autograd.grad(outcomes, parameters, into[0], True, allow_unused=True, materialize_grads=True)]
    stacked = [torch.stack(gradients) for gradients in zip(*into, strict=True)]
    found = torch.autograd.grad(outcomes, parameters, stacked, True, allow_unused=True, is_grads_batched=True)
    shapes = [(len(into), *parameter.shape) for parameter in parameters]
    whole = [p.new_zeros(s) if g is None else g for p, s, g in zip(parameters, shapes, found, strict=True)]
    assert [gradient.shape for gradient in whole] == shapes, "one gradient per record"
    return list(zip(*whole, strict=True))


def _plus(left: Sequence[Tensor], right: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(one + other for one, other in zip(left, right, strict=True))


def _norm(gradients: Sequence[Tensor]) -> float:
    return float(torch.stack([torch.linalg.vector_norm(g, dtype=torch.float64) for g in gradients]).norm())


def _of_same_tasks(episode: Episode) -> list[list[int]]:
    """Record numbers by the tasks that their queries are of, ascending."""
    tasks: dict[int, set[str]] = {}
    for record, row in zip(episode.record.tolist(), episode.query.tolist(), strict=True):
        tasks.setdefault(record, set()).add(episode.rows.samples[row].task)
    groups: dict[frozenset[str], list[int]] = {}
    for record in sorted(tasks):
        groups.setdefault(frozenset(tasks[record]), []).append(record)
    return list(groups.values())


def _refuse_shared_images(episode: Episode) -> None:
    owner: dict[str, int] = {}
    rows = torch.cat([episode.query[:, None], episode.support], dim=1)
    for record, members in zip(episode.record.tolist(), rows.tolist(), strict=True):
        for sample in (episode.rows.samples[row] for row in members):
            for identity in (f"image {sample.id}", f"patient {sample.patient}"):
                if identity != "patient None" and owner.setdefault(identity, record) != record:
                    raise ValueError(
                        f"{identity} lies in records {owner[identity]} and {record}: clipping bounds neither"
                    )
