"""The server's own images, and the support sets drawn from them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from fed_fsad import seeds
from fed_fsad.data.features import Rows
from fed_fsad.data.samples import Sample
from fed_fsad.errors import DataError

RowsOf = Callable[[Sequence[Sample]], Rows]
"""Gives a method's cached frozen features for samples, in their order."""


@dataclass(frozen=True)
class TestBed:
    """What the server tests on; both may hold several tasks.

    pool: images that supports are drawn from. test: images that are scored.
    Raises DataError when an image is in both.
    """

    __test__: ClassVar[bool] = False  # pytest takes every class called Test* for a test case

    pool: tuple[Sample, ...]
    test: tuple[Sample, ...]

    def __post_init__(self) -> None:
        known = {sample.id: sample for sample in self.pool}
        for sample in self.test:
            if sample.id in known:
                raise DataError(
                    f"a test image is also in the support pool: {sample.source.name} equals "
                    f"{known[sample.id].source.name}; remove one of the two"
                )

    def tasks(self) -> list[str]:
        """The tasks that have test images, sorted."""
        return sorted({sample.task for sample in self.test})

    def queries(self, task: str) -> tuple[Sample, ...]:
        """The test images of one task, in the order given."""
        return tuple(sample for sample in self.test if sample.task == task)


def draw_support(
    pool: Sequence[Sample], task: str, shots: int, draw: int, seed: int, per_category: bool
) -> list[Sample]:
    """K = `shots` normal images of `task`, and with `per_category` K of each of its categories (ours).

    Nothing is drawn twice, equal images count once, and the pool's order does not matter. Draws are nested: for one
    `draw`, every image drawn for a smaller K is drawn for a larger one too, and the normals are the same with and
    without `per_category`. A category with fewer than K images gives all it has. Raises DataError when there are fewer
    than K normals.
    """
    mine = sorted({sample.id: sample for sample in pool if sample.task == task}.values(), key=lambda sample: sample.id)
    normals = [sample for sample in mine if sample.is_normal]
    if len(normals) < shots:
        raise DataError(
            f"task {task!r} has {len(normals)} normal images to draw supports from but {shots} are needed; "
            "add normal images to the support pool or lower evaluation.shots"
        )
    stream = seeds.numpy_stream(seed, "support", task, draw)
    groups = [normals]
    if per_category:
        names = sorted({name for sample in mine for name in sample.categories})
        groups += [[sample for sample in mine if name in sample.categories] for name in names]
    # A whole permutation per group, whatever K is, keeps the draws nested and an image of two categories single.
    drawn = [group[i] for group in groups for i in stream.permutation(len(group))[:shots]]
    return list({sample.id: sample for sample in drawn}.values())
