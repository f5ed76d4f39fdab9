"""Episodes: what a training step sees, by property and by frequency."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fed_fsad.data.episodes import Episode, EpisodeSpec, eligible, sample_episode
from fed_fsad.data.features import Rows
from fed_fsad.data.images import FileSource
from fed_fsad.data.samples import Sample
from fed_fsad.errors import DataError

SOURCE = FileSource(Path("x.png"), None, Path(), True)
LABELS: list[tuple[str, ...]] = [(), ("u",), ("v",), ("u", "v")]


def rows_of(kinds: Sequence[tuple[str, tuple[str, ...]]]) -> Rows:
    """(task, categories) per image; feature "at" is the image's own position."""
    samples = [Sample(str(i), task, categories, None, SOURCE) for i, (task, categories) in enumerate(kinds)]
    return Rows({"at": torch.arange(len(kinds))}, tuple(samples))


def draw(rows: Rows, spec: EpisodeSpec, seed: int) -> Episode:
    return sample_episode(rows, spec, np.random.default_rng(seed))


def check_form(rows: Rows, spec: EpisodeSpec, found: Episode) -> None:
    assert found.query.shape == (spec.batch,)
    assert found.support.shape == (spec.batch, spec.supports)
    assert found.query.dtype == found.support.dtype == torch.int64
    assert found.record.tolist() == list(range(spec.batch))
    used = {*found.query.tolist(), *found.support.flatten().tolist()}
    assert used == set(range(len(found.rows)))  # no row that nobody looks at
    at = found.rows.features["at"].tolist()
    assert len(set(at)) == len(at)
    assert found.rows.samples == tuple(rows.samples[i] for i in at)


IMAGES = st.lists(st.tuples(st.sampled_from("st"), st.sampled_from(LABELS)), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(IMAGES, st.integers(1, 5), st.integers(1, 12), st.booleans(), st.integers(0, 9))
def test_episodes_with_supports(
    kinds: list[tuple[str, tuple[str, ...]]], supports: int, batch: int, normals_only: bool, seed: int
) -> None:
    rows, spec = rows_of(kinds), EpisodeSpec(supports, normals_only, batch)
    normals = Counter(task for task, categories in kinds if not categories)
    if max(normals.values(), default=0) <= supports:
        with pytest.raises(
            DataError, match=f"needs {supports + 1} normal images .* there are {max(normals.values(), default=0)};"
        ):
            draw(rows, spec, seed)
        return
    found = draw(rows, spec, seed)
    check_form(rows, spec, found)
    (task,) = {sample.task for sample in found.rows.samples}
    able = [i for i in eligible(rows.samples, spec) if rows.samples[i].task == task]
    queries = found.query.tolist()
    assert len(set(queries)) == batch or len(able) < batch
    for query, row in zip(queries, found.support.tolist(), strict=True):
        assert query not in row
        assert len(set(row)) == supports
        assert all(found.rows.samples[i].is_normal for i in row)
    if normals_only:
        assert all(sample.is_normal for sample in found.rows.samples)
        assert len(found.rows) <= max(batch, supports + 1)


@settings(max_examples=200, deadline=None)
@given(IMAGES, st.integers(1, 12), st.booleans(), st.integers(0, 9))
def test_episodes_without_supports(
    kinds: list[tuple[str, tuple[str, ...]]], batch: int, normals_only: bool, seed: int
) -> None:
    rows, spec = rows_of(kinds), EpisodeSpec(0, normals_only, batch)
    normals = sum(not categories for _, categories in kinds)
    if normals_only and not normals:
        with pytest.raises(DataError, match="no image to train on"):
            draw(rows, spec, seed)
        return
    found = draw(rows, spec, seed)
    check_form(rows, spec, found)
    drawn = [found.rows.samples[i] for i in found.query.tolist()]
    chosen = sum(sample.is_normal for sample in drawn)
    if normals_only or normals == len(kinds):
        assert chosen == batch
    elif not normals:
        assert chosen == 0
    else:
        assert chosen in (batch // 2, (batch + 1) // 2)


def test_categories_are_even_and_draws_do_not_repeat_while_images_last() -> None:
    rows = rows_of([("s", ())] * 90 + [("s", ("u",))] * 60 + [("s", ("v",))] * 6 + [("s", ("w",))] * 8)
    for seed in range(20):
        found = draw(rows, EpisodeSpec(0, False, 36), seed)
        assert len(set(found.query.tolist())) == 36
        assert Counter(found.rows.samples[i].categories for i in found.query.tolist()) == {
            (): 18,
            ("u",): 6,
            ("v",): 6,
            ("w",): 6,
        }


def test_an_odd_place_is_fair() -> None:
    rows = rows_of([("s", ())] * 9 + [("s", ("u",))] * 9 + [("s", ("v",))] * 9)
    drawn = Counter(
        found.rows.samples[i].categories
        for seed in range(600)
        for found in [draw(rows, EpisodeSpec(0, False, 1), seed)]
        for i in found.query.tolist()
    )
    assert stats.chisquare([drawn[()], drawn[("u",)], drawn[("v",)]], [300, 150, 150]).pvalue > 0.001


def test_tasks_are_drawn_in_proportion_and_queries_evenly() -> None:
    rows = rows_of([("s", ())] * 30 + [("t", ())] * 10 + [("few", ())] * 3)
    found = [draw(rows, EpisodeSpec(4, True, 4), seed) for seed in range(800)]
    tasks = Counter(one.rows.samples[0].task for one in found)
    assert stats.chisquare([tasks["s"], tasks["t"]], [600, 200]).pvalue > 0.001
    assert tasks["few"] == 0
    asked = Counter(int(one.rows.features["at"][i]) for one in found for i in one.query)
    assert stats.chisquare([asked[i] for i in range(40)]).pvalue > 0.001


def test_supports_are_drawn_evenly_among_the_others() -> None:
    rows, spec = rows_of([("t", ())] * 6), EpisodeSpec(2, True, 6)
    pairs = Counter(
        (query, int(i))
        for seed in range(300)
        for found in [draw(rows, spec, seed)]
        for query, row in zip(found.query.tolist(), found.support, strict=True)
        for i in row
    )
    assert len(pairs) == 30
    assert stats.chisquare(list(pairs.values())).pvalue > 0.001


def test_the_stream_decides_everything() -> None:
    rows = rows_of([("s", ()), ("t", ()), ("t", ("u",))] * 8)
    for spec in (EpisodeSpec(3, True, 6), EpisodeSpec(0, False, 6)):
        first, again, other = (draw(rows, spec, seed) for seed in (1, 1, 2))
        assert first.rows.samples == again.rows.samples
        assert torch.equal(first.query, again.query)
        assert torch.equal(first.support, again.support)
        assert first.rows.samples != other.rows.samples


def test_eligible() -> None:
    samples = rows_of([("s", ("u",)), ("s", ()), ("t", ())]).samples
    assert eligible(samples, EpisodeSpec(2, True, 4)) == [1, 2]
    assert eligible(samples, EpisodeSpec(0, False, 4)) == [0, 1, 2]


def test_mixed_batches_take_any_task_and_supports_of_the_query_own() -> None:
    data = rows_of([(task, ()) for task in "st" for _ in range(5)])
    spec = EpisodeSpec(supports=2, normals_only=True, batch=8, mixed=True)
    tasks = set()
    for draw in range(5):
        found = sample_episode(data, spec, np.random.default_rng(draw))
        samples = found.rows.samples
        for query, supports in zip(found.query.tolist(), found.support.tolist(), strict=True):
            tasks.add(samples[query].task)
            assert query not in supports
            assert {samples[i].task for i in supports} == {samples[query].task}
        assert len({samples[i].task for i in found.query.tolist()}) == 2
    assert tasks == {"s", "t"}


@pytest.mark.parametrize("mixed", [False, True])
def test_fixed_supports_are_the_same_in_every_draw_and_for_another_seed_others(mixed: bool) -> None:
    data = rows_of([(task, ()) for task in "st" for _ in range(5)])
    drawn: dict[int, dict[str, set[tuple[str, ...]]]] = {1: {}, 2: {}}
    for seed, found in drawn.items():
        spec = EpisodeSpec(supports=3, normals_only=True, batch=6, mixed=mixed, fixed=seed)
        for draw in range(12):
            episode = sample_episode(data, spec, np.random.default_rng(draw))
            names = [sample.id for sample in episode.rows.samples]
            for query, supports in zip(episode.query.tolist(), episode.support.tolist(), strict=True):
                assert query not in supports
                found.setdefault(names[query], set()).add(tuple(names[i] for i in supports))
    assert all(len(supports) == 1 for found in drawn.values() for supports in found.values())
    assert drawn[1] != drawn[2]
    assert any(len(set(next(iter(s)))) < 3 for s in drawn[1].values()), "drawn with replacement"
