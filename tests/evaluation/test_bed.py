import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_fsad.data.samples import Sample
from fed_fsad.errors import DataError
from fed_fsad.evaluation.bed import TestBed, draw_support
from tests.evaluation.fakes import sample

POOL = [
    *(sample(f"n{i}") for i in range(12)),
    *(sample(f"t{i}", "tumor") for i in range(9)),
    *(sample(f"b{i}", "bleed") for i in range(2)),
    *(sample(f"tb{i}", "tumor", "bleed") for i in range(2)),
    *(sample(f"other{i}", task="liver") for i in range(12)),
]


def names(drawn: list[Sample]) -> list[str]:
    return [one.source.name for one in drawn]


@given(draw=st.integers(0, 5), seed=st.integers(0, 9), per_category=st.booleans())
@settings(max_examples=30, deadline=None)
def test_draws_are_nested_and_never_repeat_an_image(draw: int, seed: int, per_category: bool) -> None:
    sets = [set(names(draw_support(POOL, "brain", k, draw, seed, per_category))) for k in (2, 4, 8)]
    assert sets[0] < sets[1] < sets[2]
    for k in (2, 4, 8):
        drawn = draw_support(POOL, "brain", k, draw, seed, per_category)
        assert len({one.id for one in drawn}) == len(drawn)
        assert sum(one.is_normal for one in drawn) == k
        assert all(one.task == "brain" for one in drawn)


def test_k_of_each_category_or_all_there_are() -> None:
    drawn = draw_support(POOL, "brain", 4, 0, 0, True)
    assert sum("tumor" in one.categories for one in drawn) >= 4
    assert sum("bleed" in one.categories for one in drawn) == 4
    eight = draw_support(POOL, "brain", 8, 0, 0, True)
    assert sum("bleed" in one.categories for one in eight) == 4


def test_normals_are_the_same_with_and_without_categories() -> None:
    plain = draw_support(POOL, "brain", 4, 1, 0, False)
    assert draw_support(POOL, "brain", 4, 1, 0, True)[:4] == plain


def test_the_draw_follows_from_seed_and_number_not_from_the_order_of_the_pool() -> None:
    first = names(draw_support(POOL, "brain", 4, 0, 0, True))
    assert names(draw_support(POOL[::-1], "brain", 4, 0, 0, True)) == first
    assert names(draw_support(POOL, "brain", 4, 1, 0, True)) != first
    assert names(draw_support(POOL, "brain", 4, 0, 1, True)) != first


def test_an_image_held_twice_counts_once() -> None:
    with pytest.raises(DataError, match="has 1 normal images"):
        draw_support([sample("a"), sample("a")], "brain", 2, 0, 0, False)


def test_too_few_normals_is_one_clear_sentence() -> None:
    with pytest.raises(DataError, match=r"task 'brain' has 12 normal .* 13 are needed; add normal images .* or lower"):
        draw_support(POOL, "brain", 13, 0, 0, False)


def test_a_test_image_in_the_pool_is_refused() -> None:
    with pytest.raises(DataError, match="a test image is also in the support pool: n3 equals n3; remove"):
        TestBed(tuple(POOL), (sample("new"), sample("n3")))


def test_tasks_and_queries() -> None:
    bed = TestBed((), (sample("a", task="liver"), sample("b"), sample("c", task="liver")))
    assert bed.tasks() == ["brain", "liver"]
    assert [one.source.name for one in bed.queries("liver")] == ["a", "c"]
