"""Several data sets on disk in one federation: a task each, shared out set by set."""

from collections import Counter
from collections.abc import Mapping, Sequence

from fed_fsad.data.adapters import normal_names
from fed_fsad.data.partition import Partition, check_names, classes_of, partition
from fed_fsad.data.samples import Sample
from fed_fsad.data.scan import scan
from fed_fsad.data.settings import CollectionData, CollectionHolding, FolderHolding
from fed_fsad.errors import ConfigError, DataError
from fed_fsad.seeds import derive


def collection_samples(
    data: CollectionData, held: Mapping[str, CollectionHolding], site: str, seed: int, withheld: frozenset[str]
) -> list[Sample]:
    """What hospital `site` trains on, task by task, at most `cap` images per class. Raises as `partition`."""
    own = held[site]
    tasks = [_split(data, held, task, seed, withheld).hospitals[site] for task in own.tasks]
    return [sample for samples in tasks for sample in _capped(samples, own.cap, seed)]


def collection_bed(
    data: CollectionData,
    held: Mapping[str, CollectionHolding],
    seed: int,
    withheld: frozenset[str],
    unseen_task: str | None,
) -> tuple[list[Sample], list[Sample]]:
    """The server's support pool and test images of every task that a hospital holds, and of the unseen one.

    Raises DataError for a task without test images; a pool that is too small is noticed when supports are drawn.
    """
    pool: list[Sample] = []
    test: list[Sample] = []
    tasks = {task for own in held.values() for task in own.tasks} | ({unseen_task} if unseen_task else set())
    for task in sorted(tasks):
        mine, tested = _split(data, held, task, seed, withheld).pool, scan(data.tasks[task]).test
        if not tested:
            raise DataError(f"{data.tasks[task].root} has no test images; put some into test/CLASS")
        pool += mine
        test += _capped(tested, data.test_cap, 0)
    return pool, test


def check_tasks(
    data: CollectionData, held: Mapping[str, CollectionHolding], withheld: frozenset[str], unseen_task: str | None
) -> None:
    """Raises ConfigError when a holding, the unseen task or a withheld category names what is not there."""
    for site, own in held.items():
        check_names(own.tasks, data.tasks, f"task of hospital {site!r}:")
        if unseen_task in own.tasks:
            raise ConfigError(f"unseen_task {unseen_task!r} is held by hospital {site!r}; take it from its tasks")
    check_names([unseen_task] if unseen_task else [], data.tasks, "unseen_task")
    if withheld:
        scans = [scan(folder) for folder in data.tasks.values()]
        known = {name for one in scans for sample in (*one.train, *one.test) for name in sample.categories}
        check_names(withheld, known, "withheld category")


def _split(
    data: CollectionData, held: Mapping[str, CollectionHolding], task: str, seed: int, withheld: frozenset[str]
) -> Partition:
    shares = {site: FolderHolding(kind="folder", share=own.share) for site, own in held.items() if task in own.tasks}
    folder = data.tasks[task]
    return partition(scan(folder).train, shares, normal_names(folder), folder.pool, seed, withheld)


def _capped(samples: Sequence[Sample], cap: int | None, seed: int) -> list[Sample]:
    """At most `cap` images per class, drawn by the seed, in the order given."""
    taken: Counter[str] = Counter()
    kept = set()
    for sample in sorted(samples, key=lambda one: derive(seed, "cap", one.id)):
        if cap is None or all(taken[name] < cap for name in classes_of(sample)):
            taken.update(classes_of(sample))
            kept.add(sample.id)
    return [sample for sample in samples if sample.id in kept]
