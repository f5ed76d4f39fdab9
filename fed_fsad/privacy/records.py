"""Privacy records: which images form one unit that differential privacy hides, decided from names alone."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Literal

import torch

from fed_fsad.data.episodes import Episode, EpisodeSpec, eligible
from fed_fsad.data.features import Rows
from fed_fsad.data.samples import Sample
from fed_fsad.errors import DataError, PolicyRefusal
from fed_fsad.seeds import derive

Unit = Literal["image", "patient"]
Records = tuple[tuple[str, ...], ...]
"""Image ids, record by record; no image and no known patient lies in two records."""


def partition_records(samples: Sequence[Sample], spec: EpisodeSpec, seed: int, unit: Unit) -> Records:
    """Split a site's images into records, from ids, tasks and patients only, never from pixels (ours).

    Without supports a record is a patient's images, or one image when the patient is unknown. With K supports it is a
    disjoint episode of K + 1 images of one task: a patient enters one episode only, with as many of his images as it
    still holds, of the task he has most images of. What fits nowhere is left out. An image that occurs twice counts
    once. The order of `samples` does not matter. Raises PolicyRefusal when the unit is the patient and one is unknown.
    """
    if unit == "patient" and not all(sample.patient_known for sample in samples):
        raise PolicyRefusal(
            "patients_unknown",
            "the policy protects patients but some images have no patient id: add a patient column to the manifest, "
            "or set unit: image in the policy",
        )
    groups = _groups([samples[i] for i in eligible(samples, spec)], seed)
    if spec.supports == 0:
        return tuple(tuple(sample.id for sample in group) for group in groups)
    by_task: dict[str, list[list[Sample]]] = {}
    for group in map(_of_main_task, groups):
        by_task.setdefault(group[0].task, []).append(group)
    return tuple(record for task in sorted(by_task) for record in _episodes(by_task[task], spec.supports + 1))


def private_episode(rows: Rows, records: Records, supports: int) -> Episode:
    """All `records` as one full batch; every image is a query once.

    supports > 0: the supports of a query are the other images of its record, so records must hold supports + 1 images;
    records of several tasks may lie side by side, each holds one. Raises DataError when `rows` lacks an image.
    """
    row = {sample.id: index for index, sample in enumerate(rows.samples)}
    missing = [name for record in records for name in record if name not in row]
    if missing:
        raise DataError(
            f"{len(missing)} images of the record split in the ledger can no longer be read (first: {missing[0]}): "
            "restore them"
        )
    query = [row[name] for record in records for name in record]
    owner = [number for number, record in enumerate(records) for _ in record]
    support = [[row[other] for other in record if supports and other != name] for record in records for name in record]
    return Episode(
        rows=rows,
        query=torch.tensor(query, dtype=torch.long),
        support=torch.tensor(support, dtype=torch.long).reshape(len(query), supports),
        record=torch.tensor(owner, dtype=torch.long),
    )


def _groups(samples: Sequence[Sample], seed: int) -> list[list[Sample]]:
    """Images by patient in an order that only names and the seed decide."""
    unique = {sample.id: sample for sample in sorted(samples, key=lambda sample: (sample.id, sample.patient or ""))}
    groups: dict[tuple[str, str], list[Sample]] = {}
    for sample in unique.values():
        owner = ("image", sample.id) if sample.patient is None else ("patient", sample.patient)
        groups.setdefault(owner, []).append(sample)
    return [groups[owner] for owner in sorted(groups, key=lambda owner: derive(seed, "records", *owner))]


def _of_main_task(group: Sequence[Sample]) -> list[Sample]:
    counts = Counter(sample.task for sample in group)
    main = max(sorted(counts), key=lambda task: counts[task])
    return [sample for sample in group if sample.task == main]


def _episodes(groups: Sequence[Sequence[Sample]], size: int) -> Iterator[tuple[str, ...]]:
    """Records of `size` images, filled group by group; what the last one of a group cannot hold is left out."""
    record: list[str] = []
    for group in groups:
        record.extend(sample.id for sample in group[: size - len(record)])
        if len(record) == size:
            yield tuple(record)
            record = []
