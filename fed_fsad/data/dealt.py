"""From everything there is to share out to what each hospital of a plan holds: dealt, thinned, mislabelled, shifted."""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from fed_fsad.data.dealing import deal, normals
from fed_fsad.data.images import FileSource
from fed_fsad.data.partition import Unit, check_names, images_of, units_of
from fed_fsad.data.phantoms import STYLES, PhantomSource
from fed_fsad.data.plan import PartitionSettings, own_of
from fed_fsad.data.samples import Sample
from fed_fsad.data.scanner import shift_of
from fed_fsad.errors import DataError
from fed_fsad.seeds import derive, numpy_stream

COLUMNS = ("id", "hospital", "use", "task", "label", "true_label", "origin")


@dataclass(frozen=True)
class Dealt:
    """What one hospital holds. train, test: no overlap, no patient in both. truth: the categories of wrongly labelled
    train images, by id.
    """

    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    truth: Mapping[str, tuple[str, ...]]


def dealt(samples: Sequence[Sample], plan: PartitionSettings, seed: int) -> dict[str, Dealt]:
    """Every hospital's images, by its name; the order of `samples` changes nothing.

    Raises DataError where the plan leaves a hospital too little to train on, ConfigError for a category that nobody
    has.
    """
    known = _categories(samples)
    check_names({name for own in plan.lacks.values() for name in own}, {*chain(*known.values())}, "partition.lacks:")
    hands = deal(units_of(samples, plan.keep == "patients"), plan, seed)
    found: dict[str, Dealt] = {}
    for place, name in enumerate(plan.names):
        units = _without_categories(hands[name], name, plan, seed)
        train, test = _apart(units, name, plan, seed)
        if (few := own_of(plan.tiny, name)) is not None:
            train = _first(train, few, seed)
        elif (count := normals(train)) < plan.least:
            raise DataError(
                f"hospital {name!r} would get {count} normal images of one organ to train on and partition.least is "
                f"{plan.least}; have fewer hospitals, change partition.by, or lower partition.least"
            )
        wrong = own_of(plan.wrong_labels, name) or 0.0
        given, truth = _mislabelled(images_of(train), wrong, known, numpy_stream(seed, "wrong labels", name))
        look = _Look(name, place, plan.shift, seed)
        own, held_out = (tuple(look(sample) for sample in some) for some in (given, images_of(test)))
        ids = {sample.id: shown.id for sample, shown in zip(given, own, strict=True)}
        found[name] = Dealt(own, held_out, {ids[key]: label for key, label in truth.items()})
    return found


def table(found: Mapping[str, Dealt], column: str) -> str:
    """Who holds what, as CSV: an image per row. column: of the manifest, whose cell is the image's origin."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for hospital, own in sorted(found.items()):
        for use, samples in (("train", own.train), ("test", own.test)):
            for sample in samples:
                truth = ";".join(own.truth.get(sample.id, sample.categories))
                label = ";".join(sample.categories)
                writer.writerow(
                    [sample.id, hospital, use, sample.task, label, truth, dict(sample.columns).get(column, "")]
                )
    return text.getvalue()


def _without_categories(units: Sequence[Unit], name: str, plan: PartitionSettings, seed: int) -> list[Unit]:
    held = sorted({category for unit in units for sample in unit.samples for category in sample.categories})
    count = own_of(plan.missing, name) or 0
    lost = {*numpy_stream(seed, "missing", name).permutation(held)[:count].tolist(), *plan.lacks.get(name, ())}
    return [unit for unit in units if not lost & unit.classes.keys()]


def _apart(units: Sequence[Unit], name: str, plan: PartitionSettings, seed: int) -> tuple[list[Unit], list[Unit]]:
    """Train and own test: in a row sorted by class, units at equal distances, so that the test has the same mix."""
    row = sorted(units, key=lambda unit: (unit.label, derive(seed, "own test", name, unit.key)))
    ends = [int(plan.own_test * place + 1e-9) for place in range(len(row) + 1)]
    test = [unit for unit, before, after in zip(row, ends[:-1], ends[1:], strict=True) if after > before]
    keys = {unit.key for unit in test}
    return [unit for unit in row if unit.key not in keys], test


def _first(units: Sequence[Unit], count: int, seed: int) -> list[Unit]:
    """Whole units, at most `count` images of them but always one unit; first those of the task with most normal images,
    so that a few suffice to train.
    """
    tasks = {unit.task for unit in units}
    main = min(tasks, key=lambda task: (-normals([unit for unit in units if unit.task == task]), task), default="")
    kept: list[Unit] = []
    for unit in sorted(units, key=lambda unit: (unit.task != main, derive(seed, "tiny", unit.key))):
        if not kept or sum(len(own.samples) for own in (*kept, unit)) <= count:
            kept.append(unit)
    return kept


def _categories(samples: Sequence[Sample]) -> dict[str, list[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for sample in samples:
        found[sample.task] |= set(sample.categories)
    return {task: sorted(names) for task, names in found.items()}


def _mislabelled(
    samples: Sequence[Sample], share: float, known: Mapping[str, Sequence[str]], rng: np.random.Generator
) -> tuple[list[Sample], dict[str, tuple[str, ...]]]:
    """A `share` of the images with the other label: normal ones get a category of their task, abnormal ones none.

    Second: the true categories by id. A normal image of a task without categories keeps its label.
    """
    able = [i for i, sample in enumerate(samples) if sample.categories or known[sample.task]]
    chosen = rng.permutation(able)[: round(share * len(samples))]
    given, truth = list(samples), {}
    for i in sorted(int(place) for place in chosen):
        old = samples[i]
        label = () if old.categories else (str(rng.choice(known[old.task])),)
        truth[old.id] = old.categories
        given[i] = replace(old, categories=label)
    return given, truth


class _Look:
    """A hospital's scanner: the phantom generator's styles in turn, or a drawn shift for files."""

    def __init__(self, name: str, place: int, strength: float, seed: int) -> None:
        self._style = place % len(STYLES)
        self._shift = shift_of(name, strength, seed) if strength else None

    def __call__(self, sample: Sample) -> Sample:
        if self._shift is None:
            return sample
        if isinstance(sample.source, PhantomSource):
            drawn = replace(sample.source, style=self._style)
            return replace(sample, id=drawn.id, source=drawn)
        if isinstance(sample.source, FileSource):
            source = replace(sample.source, shift=self._shift)
            return replace(sample, source=source, look=sample.look + self._shift.look)
        raise TypeError(f"images of {type(sample.source).__name__} have no scanner")
