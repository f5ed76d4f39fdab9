"""Rules that deal one data set out: against flwr-datasets' partitioners, and property by property."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_fsad.data.dealing import deal, dirichlet
from fed_fsad.data.partition import Unit, units_of
from fed_fsad.data.plan import PartitionSettings
from fed_fsad.data.samples import Sample
from fed_fsad.errors import DataError
from tests.data.test_partition import SOURCE

LABELS = "aababcabbacacbabbbaacaab" * 2
DIRICHLET = {
    0.3: [
        [0, 1, 3, 6, 9, 11, 2, 4, 7, 8, 13, 15, 16, 17, 23, 26, 28, 31, 32, 37, 5, 10, 12, 20, 29],
        [14, 18, 19, 21, 22, 24, 25, 27, 30, 33, 35, 38, 42, 43, 45],
        [39],
        [46, 40, 41, 47, 34, 36, 44],
    ],
    2.0: [
        [0, 1, 3, 6, 9, 11, 2, 4, 5],
        [14, 18, 19, 21, 22, 7, 8, 13, 15, 16, 17, 23],
        [24, 25, 27, 30, 26, 28, 31, 32, 10, 12],
        [33, 35, 38, 42, 43, 45, 46, 37, 39, 40, 41, 47, 20, 29, 34, 36, 44],
    ],
}
"""What DirichletPartitioner of flwr-datasets 0.6.1 makes of LABELS for 4 partitions, seed 7, self_balancing=False,
shuffle=False, min_partition_size=0, by alpha; run once, because the package needs pyarrow and pandas.
"""


def plan(by: str, hospitals: int = 3, **more: Any) -> PartitionSettings:
    return PartitionSettings.model_validate({"by": by, "hospitals": hospitals, "least": 0, **more})


def sample(i: int, label: str = "", task: str = "oct", patient: str | None = None, origin: str = "") -> Sample:
    said = (("site", origin),) if origin else ()
    return Sample(f"{i * 7919 % 10007:05}", task, (label,) if label else (), patient, SOURCE, columns=said)


def sizes(hands: dict[str, list[Unit]]) -> list[int]:
    return [sum(len(unit.samples) for unit in hands[name]) for name in sorted(hands)]


def tasks(hands: dict[str, list[Unit]]) -> list[set[str]]:
    return [{unit.task for unit in hands[name]} for name in sorted(hands)]


@pytest.mark.parametrize("alpha", DIRICHLET)
def test_dirichlet_is_flowers_partitioner_index_by_index(alpha: float) -> None:
    groups = [[i for i, found in enumerate(LABELS) if found == label] for label in sorted(set(LABELS))]
    assert dirichlet(groups, 4, alpha, np.random.default_rng(7)) == DIRICHLET[alpha]


def test_dirichlet_deals_each_class_by_the_cumulative_shares_of_its_own_draw() -> None:
    units = units_of([sample(i, label, task) for i, (label, task) in enumerate([("", "oct"), ("x", "eye")] * 40)])
    many = {seed: deal(units, plan("dirichlet", 4, alpha=0.2), seed) for seed in range(40)}
    skew = [max(sizes(hands)) for hands in many.values()]
    even = [max(sizes(deal(units, plan("dirichlet", 4, alpha=1000), seed))) for seed in range(40)]
    assert np.mean(skew) > 35, "alpha near 0: one hospital has most"
    assert max(even) <= 24, "alpha large: about a quarter each"


def test_by_patient_is_flowers_iid_up_to_whole_patients_and_keeps_the_mix() -> None:
    """IidPartitioner: sizes differ by one at most."""
    units = units_of([sample(i, "x" if i % 3 == 0 else "") for i in range(47)])
    hands = deal(units, plan("patient", 4), 0)
    assert sorted(sizes(hands)) == [11, 12, 12, 12]
    assert {sum(bool(u.samples[0].categories) for u in own) for own in hands.values()} == {4}


def test_organs_become_silos_shared_or_joined() -> None:
    units = units_of([sample(i, task="abc"[i % 3]) for i in range(60)])
    assert tasks(deal(units, plan("organ", 3), 0)) == [{"a"}, {"b"}, {"c"}]
    shared = deal(units, plan("organ", 5), 0)
    assert tasks(shared) == [{"a"}, {"b"}, {"c"}, {"a"}, {"b"}]
    assert sizes(shared) == [10, 10, 20, 10, 10]
    assert tasks(deal(units, plan("organ", 2), 0)) == [{"a", "c"}, {"b"}]


def test_quantity_skews_sizes_and_not_the_mix() -> None:
    units = units_of([sample(i, "x" if i % 2 else "") for i in range(400)])
    hands = deal(units, plan("quantity", 4, alpha=1.0), 3)
    found = sizes(hands)
    assert max(found) > 3 * min(found)
    for own, size in zip((hands[name] for name in sorted(hands)), found, strict=True):
        assert abs(sum(not u.samples[0].categories for u in own) - size / 2) <= 1


def test_natural_sites_are_those_of_the_manifest_and_the_largest_go_first_where_they_are_more() -> None:
    origins = ["north"] * 9 + ["west"] * 5 + ["east"] * 4 + ["south"] * 2
    units = units_of([sample(i, origin=origin) for i, origin in enumerate(origins)])
    whole = deal(units, plan("column", 4), 0)
    assert [{dict(u.samples[0].columns)["site"] for u in whole[name]} for name in sorted(whole)] == [
        {"east"}, {"north"}, {"south"}, {"west"},
    ]  # fmt: skip
    assert sizes(deal(units, plan("column", 2), 0)) == [11, 9], "north + south by greedy: 9, 5, 5 + 4, 9 + 2"
    with pytest.raises(DataError, match=r"site has 4 values and partition\.hospitals is 5; lower it"):
        deal(units, plan("column", 5), 0)
    moved = units_of([*(sample(i, patient="p", origin="b" if i else "a") for i in range(3)), sample(9, origin="a")])
    homes = [[unit.key[:7] for unit in own] for own in deal(moved, plan("column", 2), 0).values()]
    assert homes == [["image 0"], ["patient"]], "a patient is where most images are"
    with pytest.raises(DataError, match=r"column site says nothing of x\.png; fill it"):
        deal(units_of([sample(i) for i in range(4)]), plan("column", 2), 0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.sampled_from(["", "u", "v"]), st.sampled_from(["oct", "eye"])),
             min_size=20, max_size=70),
    st.sampled_from(["organ", "dirichlet", "quantity", "patient", "column"]),
    st.integers(1, 5),
    st.integers(0, 99),
    st.sampled_from(["patients", "images"]),
)  # fmt: skip
def test_every_unit_goes_to_one_hospital_and_the_order_changes_nothing(
    drawn: Sequence[tuple[int, str, str]], by: str, hospitals: int, seed: int, keep: str
) -> None:
    samples = [
        sample(i, label, task, f"{task}{p}" if p else None, origin=f"h{i % 5}")
        for i, (p, label, task) in enumerate(drawn)
    ]
    units = units_of(samples, keep == "patients")
    chosen = plan(by, hospitals)
    try:
        hands = deal(units, chosen, seed)
    except DataError:
        return
    assert list(hands) == list(chosen.names)
    dealt = Counter(unit.key for own in hands.values() for unit in own)
    assert dealt == Counter(unit.key for unit in units)
    again = deal(list(reversed(units)), chosen, seed)
    assert {name: [u.key for u in own] for name, own in again.items()} == {
        name: [u.key for u in own] for name, own in hands.items()
    }


def test_a_draw_that_leaves_a_hospital_too_little_is_repeated_and_in_the_end_refused() -> None:
    units = units_of([sample(i, "x" if i % 2 else "") for i in range(200)])
    for seed in range(20):
        hands = deal(units, plan("dirichlet", 4, alpha=0.3, least=5), seed)
        assert min(sum(not u.samples[0].categories for u in own) for own in hands.values()) >= 5
    with pytest.raises(DataError, match=r"partition\.alpha 0\.01 .* 30 normal images .*; raise alpha, or lower"):
        deal(units, plan("dirichlet", 4, alpha=0.01, least=30), 0)
    with pytest.raises(DataError, match=r"2 train images or patients for 3 hospitals; lower partition\.hospitals"):
        deal(units[:2], plan("patient", 3), 0)
