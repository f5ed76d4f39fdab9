"""Episodes: which image is query, which are its supports, and which of them form one privacy record."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fed_fsad.data.features import Rows
from fed_fsad.data.samples import Sample
from fed_fsad.errors import DataError
from fed_fsad.seeds import numpy_stream


@dataclass(frozen=True)
class EpisodeSpec:
    """What a method trains on.

    supports: normal images beside every query (K); 0 means single labelled images.
    normals_only: queries are normal images only.
    batch: queries per step.
    mixed: queries of any task in one batch, each with supports of its own task, drawn from all of its normal images.
    fixed: a seed; every image then keeps the supports that it draws once, with replacement. None: drawn in every step.
    """

    supports: int
    normals_only: bool
    batch: int
    mixed: bool = False
    fixed: int | None = None


@dataclass(frozen=True)
class Episode:
    """One training batch, as frozen features; supports are gathered from the same rows, so each image is encoded once.

    rows: N images, of one task when supports > 0 and the spec does not mix tasks.
    query: [B] int64, the row of each query.
    support: [B, K] int64, the rows of its supports; K may be 0.
    record: [B] int64, the privacy record each query belongs to (0..R-1); arange(B) when every query is its own.
    """

    rows: Rows
    query: Tensor
    support: Tensor
    record: Tensor


def eligible(samples: Sequence[Sample], spec: EpisodeSpec) -> list[int]:
    """The positions of the images that may be a query."""
    return [i for i, sample in enumerate(samples) if sample.is_normal or not spec.normals_only]


def sample_episode(rows: Rows, spec: EpisodeSpec, rng: np.random.Generator) -> Episode:
    """Draw one training batch; every query is its own record, as plain training wants it (DP groups its own).

    supports > 0: one task, chosen in proportion to its eligible images; `batch` queries of it, and for each K normal
    images of the same drawn rows, never itself (ours: supports are gathered, not encoded again). supports = 0: `batch`
    images, half of them normal where both exist, the abnormal ones spread evenly over the categories. Without
    replacement where the images suffice. `mixed` and `fixed` are the public D²4FAD code's ways. Raises DataError when
    no task has K + 1 normal images or nothing is eligible.
    """
    if spec.supports:
        queries, candidates = _queries(rows.samples, spec, rng)
        supports = [_supports(rows.samples, query, candidates[query], spec, rng) for query in queries]
    else:
        queries = _balanced(rows.samples, spec, rng)
        supports = [[] for _ in queries]
    needed = sorted({*queries, *(i for row in supports for i in row)})
    at = {row: position for position, row in enumerate(needed)}
    query = torch.tensor([at[i] for i in queries], dtype=torch.long)
    support = torch.tensor([[at[i] for i in row] for row in supports], dtype=torch.long)
    return Episode(rows.select(needed), query, support.reshape(len(queries), spec.supports), torch.arange(len(queries)))


def _choose(items: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """`count` of `items`: without replacement while they last, with replacement when they are fewer."""
    return [items[i] for i in rng.choice(len(items), count, replace=count > len(items))]


def _supports(
    samples: Sequence[Sample], query: int, candidates: Sequence[int], spec: EpisodeSpec, rng: np.random.Generator
) -> list[int]:
    """The supports of one query, never itself."""
    others = [i for i in candidates if i != query]
    if spec.fixed is None:
        return _choose(others, spec.supports, rng)
    stream = numpy_stream(spec.fixed, "fixed supports", samples[query].id)
    return [others[i] for i in stream.choice(len(others), spec.supports)]


def _queries(
    samples: Sequence[Sample], spec: EpisodeSpec, rng: np.random.Generator
) -> tuple[list[int], dict[int, list[int]]]:
    """The queries of a batch, and for each of them the normal images among which its supports are drawn."""
    queries_of: defaultdict[str, list[int]] = defaultdict(list)
    normals_of: defaultdict[str, list[int]] = defaultdict(list)
    for i in eligible(samples, spec):
        queries_of[samples[i].task].append(i)
        if samples[i].is_normal:
            normals_of[samples[i].task].append(i)
    tasks = sorted(task for task, normals in normals_of.items() if len(normals) > spec.supports)
    if not tasks:
        most = max(map(len, normals_of.values()), default=0)
        raise DataError(
            f"training with {spec.supports} supports needs {spec.supports + 1} normal images of one task and there are "
            f"{most}; add normal images or lower the number of supports"
        )
    if spec.mixed:
        queries = _choose([i for task in tasks for i in queries_of[task]], spec.batch, rng)
        return queries, {i: normals_of[samples[i].task] for i in queries}
    weights = np.array([len(queries_of[task]) for task in tasks])
    task = tasks[rng.choice(len(tasks), p=weights / weights.sum())]
    queries = _choose(queries_of[task], spec.batch, rng)
    if spec.fixed is not None:
        return queries, dict.fromkeys(queries, normals_of[task])
    drawn = sorted({i for i in queries if samples[i].is_normal})
    others = sorted(set(normals_of[task]) - set(drawn))
    gathered = drawn + _choose(others, max(0, spec.supports + 1 - len(drawn)), rng)
    return queries, dict.fromkeys(queries, gathered)


def _balanced(samples: Sequence[Sample], spec: EpisodeSpec, rng: np.random.Generator) -> list[int]:
    able = eligible(samples, spec)
    normals = [i for i in able if samples[i].is_normal]
    showing: defaultdict[str, list[int]] = defaultdict(list)
    for i in able:
        for name in samples[i].categories:
            showing[name].append(i)
    if not able:
        raise DataError("there is no image to train on; add images of the classes this hospital may use")
    # An odd batch gives its last place to either side by a coin, so that neither is favoured in the long run.
    half = (spec.batch + int(rng.integers(2))) // 2
    count = half if normals and showing else spec.batch * bool(normals)
    drawn = _choose(normals, count, rng) if count else []
    names = [sorted(showing)[i] for i in rng.permutation(len(showing))]
    for place in range(spec.batch - count):
        images = showing[names[place % len(names)]]
        drawn += _choose(sorted(set(images) - set(drawn)) or images, 1, rng)
    return drawn
