"""Rules by which units, which are patients or single images, go to hospitals."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from fed_fsad.data.partition import Unit, share_out
from fed_fsad.data.plan import PartitionSettings
from fed_fsad.errors import DataError
from fed_fsad.seeds import derive, numpy_stream

ATTEMPTS = 1000
"""Draws of a Dirichlet distribution before a hospital with too few images is an error."""
Item = TypeVar("Item")
Hands = dict[str, list[Unit]]
"""Hospital to its units."""


def deal(units: Sequence[Unit], plan: PartitionSettings, seed: int) -> Hands:
    """Every unit to one hospital. The order of `units` changes nothing. Raises DataError where the rule cannot be
    kept.
    """
    if len(units) < plan.hospitals:
        raise DataError(
            f"{len(units)} train images or patients for {plan.hospitals} hospitals; lower partition.hospitals"
        )
    return _RULES[plan.by](sorted(units, key=lambda unit: derive(seed, "partition", unit.key)), plan, seed)


def normals(units: Sequence[Unit]) -> int:
    """Normal images of the one task that a hospital with these units has most of: what training needs a few of."""
    found = Counter(sample.task for unit in units for sample in unit.samples if sample.is_normal)
    return max(found.values(), default=0)


def dirichlet(
    groups: Sequence[Sequence[Item]], hospitals: int, alpha: float, rng: np.random.Generator
) -> list[list[Item]]:
    """Each group by shares of its own from Dirichlet(alpha) (Hsu et al., 2019), hospital by hospital.

    The definition of flwr-datasets' DirichletPartitioner without self-balancing: cumulative shares times the count,
    rounded down, are where a group is cut.
    """
    parts: list[list[Item]] = [[] for _ in range(hospitals)]
    for group in groups:
        ends = (np.cumsum(rng.dirichlet([alpha] * hospitals)) * len(group)).astype(int)[:-1].tolist()
        for part, start, end in zip(parts, [0, *ends], [*ends, len(group)], strict=True):
            part += group[start:end]
    return parts


def _by_organ(units: Sequence[Unit], plan: PartitionSettings, seed: int) -> Hands:
    """Silos: an organ (task) lies at one hospital, or, with fewer organs than hospitals, evenly at several."""
    tasks = sorted({unit.task for unit in units})
    hands: Hands = {name: [] for name in plan.names}
    for place, task in enumerate(tasks):
        own = [unit for unit in units if unit.task == task]
        homes = plan.names[place :: len(tasks)] or (plan.names[place % plan.hospitals],)
        for name, dealt in _evenly(own, homes, seed).items():
            hands[name] += dealt
    return hands


def _by_patient(units: Sequence[Unit], plan: PartitionSettings, seed: int) -> Hands:
    """Every hospital the same mix of classes, as far as whole units allow."""
    return _evenly(units, plan.names, seed)


def _by_quantity(units: Sequence[Unit], plan: PartitionSettings, seed: int) -> Hands:
    """The same mix everywhere, in sizes drawn from Dirichlet(alpha)."""
    rng = numpy_stream(seed, "quantity")

    def draw() -> Hands:
        shares = np.maximum(rng.dirichlet([plan.alpha] * plan.hospitals), 1e-9)
        return _shared(units, dict(zip(plan.names, map(float, shares), strict=True)), seed)

    return _until_enough(draw, plan)


def _by_dirichlet(units: Sequence[Unit], plan: PartitionSettings, seed: int) -> Hands:
    """Each class by shares of its own."""
    alike: defaultdict[tuple[str, ...], list[Unit]] = defaultdict(list)
    for unit in units:
        alike[unit.label].append(unit)
    groups = [group for _, group in sorted(alike.items())]
    rng = numpy_stream(seed, "dirichlet")

    def draw() -> Hands:
        return dict(zip(plan.names, dirichlet(groups, plan.hospitals, plan.alpha, rng), strict=True))

    return _until_enough(draw, plan)


def _by_column(units: Sequence[Unit], plan: PartitionSettings, seed: int) -> Hands:
    """Natural sites: what a column of the manifest says. With more sites than hospitals the largest one goes first,
    each to the hospital with the fewest images so far.
    """
    homes = {unit.key: _home(unit, plan.column) for unit in units}
    sizes: Counter[str] = Counter()
    for unit in units:
        sizes[homes[unit.key]] += len(unit.samples)
    if len(sizes) < plan.hospitals:
        raise DataError(
            f"the manifest's column {plan.column} has {len(sizes)} values and partition.hospitals is {plan.hospitals}; "
            "lower it"
        )
    order = sorted(sizes) if len(sizes) == plan.hospitals else sorted(sizes, key=lambda site: (-sizes[site], site))
    chosen: dict[str, str] = {}
    held = dict.fromkeys(plan.names, 0)
    for site in order:
        chosen[site] = min(plan.names, key=lambda name: (held[name] > 0, held[name], name))
        held[chosen[site]] += sizes[site]
    return {name: [unit for unit in units if chosen[homes[unit.key]] == name] for name in plan.names}


def _home(unit: Unit, column: str) -> str:
    """What the column says of most of a unit's images."""
    taken = Counter(dict(sample.columns)[column] for sample in unit.samples if column in dict(sample.columns))
    if not taken:
        raise DataError(
            f"the manifest's column {column} says nothing of {unit.samples[0].source.name}; fill it, or choose another "
            "partition.by"
        )
    return min(taken, key=lambda site: (-taken[site], site))


def _evenly(units: Sequence[Unit], names: Sequence[str], seed: int) -> Hands:
    return _shared(units, dict.fromkeys(names, 1.0), seed)


def _shared(units: Sequence[Unit], shares: Mapping[str, float], seed: int) -> Hands:
    return share_out(units, shares, dict.fromkeys(shares, frozenset()), seed)


def _until_enough(draw: Callable[[], Hands], plan: PartitionSettings) -> Hands:
    """The first draw that leaves every hospital enough to train on, what it keeps for its own test aside."""
    needed = plan.least / (1 - plan.own_test)
    for _ in range(ATTEMPTS):
        hands = draw()
        if min(map(normals, hands.values())) >= needed:
            return hands
    raise DataError(
        f"none of {ATTEMPTS} draws with partition.alpha {plan.alpha:g} gives each of {plan.hospitals} hospitals "
        f"{plan.least} normal images of one organ (partition.least); raise alpha, or lower hospitals or least"
    )


_RULES: dict[str, Callable[[Sequence[Unit], PartitionSettings, int], Hands]] = {
    "organ": _by_organ,
    "patient": _by_patient,
    "quantity": _by_quantity,
    "dirichlet": _by_dirichlet,
    "column": _by_column,
}
