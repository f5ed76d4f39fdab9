"""One data set over several hospitals: nothing twice, nothing leaks, shares are kept."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_fsad.data.images import FileSource
from fed_fsad.data.partition import Partition, partition
from fed_fsad.data.samples import Sample
from fed_fsad.data.settings import FolderHolding
from fed_fsad.errors import ConfigError, DataError

SOURCE = FileSource(Path("x.png"), None, Path(), True)


def sample(i: int, categories: Sequence[str] = (), patient: str | None = None) -> Sample:
    return Sample(f"{i * 7919 % 10007:05}", "oct", tuple(categories), patient, SOURCE)


def many(**counts: int) -> list[Sample]:
    """many(normal=3, CNV=2): so many samples per class, without patients."""
    labels = [() if name == "normal" else (name,) for name, count in counts.items() for _ in range(count)]
    return [sample(i, label) for i, label in enumerate(labels)]


def holdings(**shares: float) -> dict[str, FolderHolding]:
    return {site: FolderHolding(kind="folder", share=share) for site, share in shares.items()}


def split(
    samples: Sequence[Sample],
    held: Mapping[str, FolderHolding],
    pool: int = 0,
    seed: int = 1,
    withheld: frozenset[str] = frozenset(),
) -> Partition:
    return partition(samples, held, ("normal", "healthy"), pool, seed, withheld)


def per_class(samples: Sequence[Sample]) -> Counter[str]:
    return Counter(name for one in samples for name in one.categories or ("normal",))


def test_shares_are_kept_class_by_class() -> None:
    found = split(many(normal=80, CNV=40, drusen=20), holdings(a=1, b=2, c=1)).hospitals
    assert per_class(found["b"]) == {"normal": 40, "CNV": 20, "drusen": 10}
    assert per_class(found["a"]) == per_class(found["c"]) == {"normal": 20, "CNV": 10, "drusen": 5}


def test_the_pool_comes_first_and_takes_a_quarter_at_most() -> None:
    found = split(many(normal=100, CNV=20, drusen=3), holdings(a=1, b=1), pool=24)
    assert per_class(found.pool) == {"normal": 24, "CNV": 5}
    everything = [one.id for own in (found.pool, *found.hospitals.values()) for one in own]
    assert len(everything) == len(set(everything)) == 123


def test_lacked_classes_go_to_the_others() -> None:
    held = holdings(a=1, b=1)
    held["a"] = FolderHolding(kind="folder", lacks=("CNV",))
    held["b"] = FolderHolding(kind="folder", lacks=("healthy",))
    found = split(many(normal=10, CNV=6), held).hospitals
    assert per_class(found["a"]) == {"normal": 10}
    assert per_class(found["b"]) == {"CNV": 6}


def test_withheld_categories_reach_nobody() -> None:
    mixed = [
        *many(normal=12, CNV=12, DME=12),
        sample(90, ("CNV", "DME")),
        sample(91, (), "p"),
        sample(92, ("DME",), "p"),
    ]
    found = split(mixed, holdings(a=1, b=1), pool=4, withheld=frozenset({"DME"}))
    given = [one for own in (found.pool, *found.hospitals.values()) for one in own]
    assert per_class(given) == {"normal": 12, "CNV": 12}
    assert not {one.id for one in given} & {one.id for one in mixed[-3:]}


def test_the_split_follows_ids_and_seed_and_nothing_else() -> None:
    samples = many(normal=30, CNV=17)
    held = holdings(a=1, b=1, c=2)
    first = split(samples, held, pool=3)
    shuffled = [samples[i] for i in np.random.default_rng(0).permutation(len(samples))]
    assert split(shuffled, dict(reversed(held.items())), pool=3) == first
    assert split(samples, held, pool=3, seed=2).pool != first.pool
    assert split(samples, held, seed=2).hospitals["c"] != split(samples, held, seed=1).hospitals["c"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from([(), ("u",), ("v",), ("u", "v")])), min_size=30, max_size=90
    ),
    st.lists(st.floats(0.2, 5), min_size=1, max_size=4),
    st.integers(0, 10),
    st.integers(0, 1000),
)
def test_patients_are_never_split(
    drawn: list[tuple[int, tuple[str, ...]]], shares: list[float], pool: int, seed: int
) -> None:
    samples = [sample(i, labels, f"p{p}" if p else None) for i, (p, labels) in enumerate(drawn)]
    try:
        found = split(samples, holdings(**{f"s{i}": share for i, share in enumerate(shares)}), pool, seed)
    except DataError:
        return
    parties = [found.pool, *found.hospitals.values()]
    assert sorted(one.id for own in parties for one in own) == sorted(one.id for one in samples)
    at: dict[str, int] = {}
    for number, own in enumerate(parties):
        assert all(at.setdefault(one.patient, number) == number for one in own if one.patient)
    everything = per_class(samples)
    assert all(count <= min(pool, everything[name] // 4) for name, count in per_class(found.pool).items())


def test_what_is_refused() -> None:
    with pytest.raises(DataError, match="2 train images or patients for 3 hospitals"):
        split(many(normal=2), holdings(a=1, b=1, c=1))
    same = [sample(i, (), "p") for i in range(9)]
    with pytest.raises(DataError, match="1 train images or patients for 2 hospitals"):
        split(same, holdings(a=1, b=1))
    with pytest.raises(DataError, match="hospital 'a' would get no image; raise its share"):
        split(many(normal=6), holdings(a=0.001, b=1))
    held = {"a": FolderHolding(kind="folder", lacks=("CVN",))}
    with pytest.raises(ConfigError, match="class that hospital 'a' lacks: 'CVN' does not exist; did you mean 'CNV'"):
        split(many(normal=6, CNV=3), held)
