"""One data set shared out over the hospitals of a simulation (ours): by class, by patient, by the run's seed."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from fed_fsad.data.samples import Sample
from fed_fsad.data.settings import FolderHolding
from fed_fsad.errors import ConfigError, DataError
from fed_fsad.names import suggestion
from fed_fsad.seeds import derive

NORMAL = ""
"""The class of a sample without categories; no category can have an empty name."""


@dataclass(frozen=True)
class Unit:
    """Images that stay together: all of a patient, or one image whose patient is unknown."""

    key: str
    samples: tuple[Sample, ...]

    @property
    def classes(self) -> Counter[str]:
        """Class name to images of the unit that show it."""
        return Counter(name for sample in self.samples for name in classes_of(sample))

    @property
    def task(self) -> str:
        """Organ and modality."""
        return self.samples[0].task

    @property
    def label(self) -> tuple[str, ...]:
        """Task and classes: units of one label are alike for a partition."""
        return (self.task, *sorted(self.classes))


@dataclass(frozen=True)
class Partition:
    """pool: what the server keeps to draw support sets from. hospitals: site name to its images; no overlaps."""

    pool: tuple[Sample, ...]
    hospitals: Mapping[str, tuple[Sample, ...]]


def classes_of(sample: Sample) -> tuple[str, ...]:
    """The classes a sample counts for: its categories, or NORMAL alone."""
    return sample.categories or (NORMAL,)


def partition(
    samples: Sequence[Sample],
    holdings: Mapping[str, FolderHolding],
    normal: Collection[str],
    pool: int,
    seed: int,
    withheld: frozenset[str],
) -> Partition:
    """Share train images out; the order of `samples` and of `holdings` changes nothing.

    Images of `withheld` categories, and of patients that have one, go to nobody. The server's pool comes first: up to
    `pool` images per class, at most a quarter of a class if there are hospitals to serve. Each of them then gets its
    `share` of every class it does not lack. `normal` are the class names that stand for NORMAL in `lacks`. Raises
    ConfigError for an unknown class in `lacks`, DataError when a hospital gets no image.
    """
    known = {name for sample in samples for name in sample.categories}
    lacks = {site: _lacked(site, holding, known, normal) for site, holding in holdings.items()}
    units = [unit for unit in units_of(samples) if not withheld & unit.classes.keys()]
    if len(units) < len(holdings):
        raise DataError(
            f"{len(units)} train images or patients for {len(holdings)} hospitals; add images or drop sites"
        )
    kept = take_pool(sorted(units, key=lambda unit: derive(seed, "pool", unit.key)), pool, 4 if holdings else 1)
    rest = [unit for unit in units if unit.key not in kept]
    given = share_out(rest, {site: holding.share for site, holding in holdings.items()}, lacks, seed)
    if empty := sorted(site for site, own in given.items() if not own):
        raise DataError(f"hospital {empty[0]!r} would get no image; raise its share or let it lack fewer classes")
    return Partition(images_of(kept.values()), {site: images_of(own) for site, own in given.items()})


def check_names(names: Iterable[str], known: Collection[str], what: str) -> None:
    """Raises ConfigError with the nearest right name for the first of `names` that is not `known`."""
    for name in sorted(names):
        if name not in known:
            raise ConfigError(f"{what} {name!r} does not exist; {suggestion(name, known)}")


def _lacked(site: str, holding: FolderHolding, known: Collection[str], normal: Collection[str]) -> frozenset[str]:
    check_names(holding.lacks, {*known, *normal}, f"class that hospital {site!r} lacks:")
    return frozenset(NORMAL if name in normal else name for name in holding.lacks)


def units_of(samples: Sequence[Sample], patients: bool = True) -> list[Unit]:
    """What stays together, by key: all images of a patient, unless `patients` is false."""
    grouped: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        whole = patients and sample.patient
        grouped[f"patient {sample.patient}" if whole else f"image {sample.id}"].append(sample)
    return [Unit(key, tuple(sorted(own, key=lambda sample: sample.id))) for key, own in sorted(grouped.items())]


def images_of(units: Iterable[Unit]) -> tuple[Sample, ...]:
    """All images of the units, by id."""
    return tuple(sorted((sample for unit in units for sample in unit.samples), key=lambda sample: sample.id))


def take_pool(units: Sequence[Unit], pool: int, part: int) -> dict[str, Unit]:
    """Whole units in the given order, as long as no class passes its limit: `pool`, or a `part`-th of the class."""
    total = sum((unit.classes for unit in units), Counter[str]())
    limit = {name: min(pool, count // part) for name, count in total.items()}
    taken: Counter[str] = Counter()
    kept = {}
    for unit in units:
        if all(taken[name] + count <= limit[name] for name, count in unit.classes.items()):
            taken += unit.classes
            kept[unit.key] = unit
    return kept


def share_out(
    units: Sequence[Unit], shares: Mapping[str, float], lacks: Mapping[str, frozenset[str]], seed: int
) -> dict[str, list[Unit]]:
    """Units with the same classes go, one by one, to the hospital furthest behind its share (Sainte-Laguë's rule)."""
    alike: defaultdict[tuple[str, ...], list[Unit]] = defaultdict(list)
    for unit in units:
        alike[unit.label].append(unit)
    given: dict[str, list[Unit]] = {site: [] for site in sorted(shares)}
    total = dict.fromkeys(given, 0)
    for (_, *classes), group in sorted(alike.items()):
        able = [site for site in given if not lacks[site] & set(classes)]
        count = dict.fromkeys(able, 0)
        for unit in sorted(group, key=lambda unit: derive(seed, "partition", unit.key)) if able else []:
            size = len(unit.samples)
            site = min(able, key=lambda s: ((2 * count[s] + size) / shares[s], total[s] / shares[s], s))
            given[site].append(unit)
            count[site] += size
            total[site] += size
    return given
