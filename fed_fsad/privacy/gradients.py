"""Private gradients: clipped record by record, summed, noised, divided by a number that is fixed beforehand."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fed_fsad.data.episodes import Episode
from fed_fsad.methods.method import Method
from fed_fsad.privacy.noise import Noise

_NORM_SLACK = 1e-6


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
    """One noisy full-batch gradient, by tensor name in the parameters' shapes.

    clipped_fraction and invalid_records carry no noise: they are for the hospital's own log and never travel.
    """

    gradients: Mapping[str, Tensor]
    clipped_fraction: float
    invalid_records: int


def private_gradient(
    method: Method,
    episode: Episode,
    *,
    records: int,
    clip_norm: float,
    noise_multiplier: float,
    noise: Noise,
    names: Sequence[str],
) -> PrivateGradient:
    """One step of DP-SGD (Abadi et al. 2016, Algorithm 1) over every record of `episode`.

    records: the divisor, fixed beforehand; dividing by the records really present would tell their number.
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

    One pull-back per record: it needs the least memory, and no batching rule can mistake what a record is.
    """
    parameters = {name: method.trainable()[name] for name in names}
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    clipped = invalid = seen = 0
    for gradients in _record_gradients(method, episode, list(parameters.values())):
        norm = _norm(gradients)
        seen += 1
        if not math.isfinite(norm):
            invalid += 1
            continue
        factor = min(1.0, clip_norm / (norm + _NORM_SLACK))
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


def _record_gradients(method: Method, episode: Episode, parameters: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """The gradient of every record's mean loss; the records of one chunk hang on one graph."""
    for chunk in _chunks(episode, method.records_per_graph):
        part = select_records(episode, chunk)
        losses = method.losses(part)
        for record in range(len(chunk)):
            gradients = torch.autograd.grad(
                losses[part.record == record].mean(),
                parameters,
                retain_graph=record < len(chunk) - 1,
                allow_unused=True,
                materialize_grads=True,
            )
            if len(chunk) > 1 and not math.isfinite(_norm(gradients)):
                # On a shared graph 0 x NaN is NaN: one bad record would silence its neighbours, and removing it would
                # bring them back, which no clipping bounds. On its own graph a record answers for itself only.
                alone = method.losses(select_records(part, [record])).mean()
                gradients = torch.autograd.grad(alone, parameters, allow_unused=True, materialize_grads=True)
            yield gradients


def _norm(gradients: Sequence[Tensor]) -> float:
    return float(torch.stack([torch.linalg.vector_norm(g, dtype=torch.float64) for g in gradients]).norm())


def _chunks(episode: Episode, size: int) -> Iterator[list[int]]:
    """Record numbers in chunks of at most `size`, task by task: an episode with supports holds one task, and without
    them a pull-back through a graph of one task is the shortest."""
    by_task: dict[str, list[int]] = {}
    first_query = dict(zip(episode.record.tolist(), episode.query.tolist(), strict=True))
    for record, row in sorted(first_query.items()):
        by_task.setdefault(episode.rows.samples[row].task, []).append(record)
    for records in by_task.values():
        for start in range(0, len(records), size):
            yield records[start : start + size]


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
