"""Who shares a record with whom, and that only names decide it."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_fsad.data.episodes import EpisodeSpec
from fed_fsad.errors import DataError, PolicyRefusal
from fed_fsad.privacy.records import partition_records, private_episode
from tests.privacy.toys import images, rows, sample


def spec(supports: int, normals_only: bool = True) -> EpisodeSpec:
    return EpisodeSpec(supports=supports, normals_only=normals_only, batch=4)


people = st.lists(
    st.tuples(st.sampled_from([None, "p", "q", "r", "s"]), st.sampled_from(["brain", "liver"])), max_size=40
)


@settings(max_examples=80, deadline=None)
@given(people, st.integers(0, 4), st.integers(0, 5))
def test_no_image_and_no_patient_lies_in_two_records(
    who: list[tuple[str | None, str]], supports: int, seed: int
) -> None:
    samples = [sample(f"i{n}", patient, task) for n, (patient, task) in enumerate(who)]
    by_id = {s.id: s for s in samples}
    records = partition_records(samples, spec(supports), seed, "image")
    names = [name for record in records for name in record]
    assert len(names) == len(set(names))
    patients = [p for record in records for p in {by_id[name].patient for name in record} if p is not None]
    assert len(patients) == len(set(patients))
    if supports:
        assert all(len(record) == supports + 1 for record in records)
        assert all(len({by_id[name].task for name in record}) == 1 for record in records)
    else:
        assert set(names) == set(by_id)
    shuffled = random.Random(seed).sample(samples, len(samples))
    assert partition_records(shuffled, spec(supports), seed, "image") == records


def test_all_images_of_unknown_patients_are_used_but_for_a_rest() -> None:
    records = partition_records(images(23), spec(4), 1, "image")
    assert [len(record) for record in records] == [5, 5, 5, 5]
    assert records != partition_records(images(23), spec(4), 2, "image")


def test_abnormal_images_stay_out_of_a_method_that_learns_normals() -> None:
    samples = [*images(4), sample("lesion", categories=("tumour",))]
    assert ("lesion",) not in partition_records(samples, spec(0), 0, "image")
    assert ("lesion",) in partition_records(samples, spec(0, normals_only=False), 0, "image")


def test_an_image_that_occurs_twice_counts_once() -> None:
    assert len(partition_records([*images(3), *images(3)], spec(0), 0, "image")) == 3


def test_a_patient_is_one_record() -> None:
    samples = [sample("a", "p"), sample("b"), sample("c", "p")]
    assert set(partition_records(samples, spec(0), 0, "image")) == {("a", "c"), ("b",)}


def test_a_patient_enters_one_episode_with_what_fits() -> None:
    samples = [sample(f"{patient}{n}", patient) for patient in "pqr" for n in range(7)]
    records = partition_records(samples, spec(2), 0, "patient")
    assert sorted("".join({name[0] for name in record}) for record in records) == ["p", "q", "r"]
    assert [len(record) for record in records] == [3, 3, 3]
    pairs = [sample(f"{patient}{n}", patient) for patient in "pqrs" for n in range(2)]
    assert [len(record) for record in partition_records(pairs, spec(2), 0, "patient")] == [3, 3]


def test_the_unit_patient_needs_patients() -> None:
    with pytest.raises(PolicyRefusal, match="patient") as refusal:
        partition_records([sample("a", "p"), sample("b")], spec(0), 0, "patient")
    assert refusal.value.code == "patients_unknown"


def test_every_image_is_query_once_beside_the_rest_of_its_record() -> None:
    samples = images(7)
    records = (("image003", "image001", "image006"), ("image000", "image002", "image005"))
    episode = private_episode(rows(samples), records, 2)
    assert episode.query.tolist() == [3, 1, 6, 0, 2, 5]
    assert episode.support.tolist() == [[1, 6], [3, 6], [3, 1], [2, 5], [0, 5], [0, 2]]
    assert episode.record.tolist() == [0, 0, 0, 1, 1, 1]


def test_without_supports_every_image_is_a_query() -> None:
    episode = private_episode(rows(images(3)), (("image002", "image000"), ("image001",)), 0)
    assert episode.query.tolist() == [2, 0, 1]
    assert episode.support.shape == (3, 0)
    assert episode.record.tolist() == [0, 0, 1]


def test_a_lost_image_is_named() -> None:
    with pytest.raises(DataError, match="image009"):
        private_episode(rows(images(3)), (("image000",), ("image009",)), 0)
