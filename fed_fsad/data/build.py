"""Which images each party of a federation works with: a simulated hospital, a real one, the server."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from pydantic import TypeAdapter

from fed_fsad.data.adapters import listing, normal_names
from fed_fsad.data.collection import check_tasks, collection_bed, collection_samples
from fed_fsad.data.dealt import Dealt, dealt
from fed_fsad.data.partition import Partition, check_names, partition
from fed_fsad.data.phantoms import ORGANS, of_patients, phantom_set
from fed_fsad.data.plan import Holdings, PartitionSettings, plan_of
from fed_fsad.data.samples import Sample
from fed_fsad.data.scan import OnFile, Skipped, scan
from fed_fsad.data.settings import (
    CollectionData,
    CollectionHolding,
    DataSettings,
    FolderData,
    FolderHolding,
    Holding,
    PhantomData,
    PhantomHolding,
)
from fed_fsad.errors import ConfigError, DataError
from fed_fsad.seeds import derive

EVERYTHING = "everything"
"""Who holds, for a moment, all that a partition deals out."""
PER_ORGAN = 96
"""Normal and abnormal phantoms of an organ that a partition deals out."""
_DATA: TypeAdapter[DataSettings] = TypeAdapter(DataSettings)


def hospital_samples(
    data: DataSettings,
    holdings: Holdings,
    site: str,
    seed: int,
    withheld: frozenset[str],
    unseen_task: str | None,
) -> list[Sample]:
    """What hospital `site` of a simulation trains on; no image of a `withheld` category or of `unseen_task`.

    Raises ConfigError when data, holdings, withheld names and unseen task do not fit together, DataError when the
    images on disk do not serve.
    """
    check_names([site], holdings, "hospital")
    if plan := plan_of(holdings):
        return list(dealt_out(data, plan, seed, withheld, unseen_task)[site].train)
    if isinstance(data, FolderData):
        return list(_split(data, holdings, seed, withheld, unseen_task).hospitals[site])
    if isinstance(data, CollectionData):
        return collection_samples(data, _collected(data, holdings, withheld, unseen_task), site, seed, withheld)
    own = _phantom_holdings({site: holdings[site]}, withheld, unseen_task)[site]
    drawn = {
        organ: _draw(data, organ, own.normal, own.abnormal, own.style, derive(seed, "hospital", site), withheld)
        for organ in own.organs
    }
    return [sample for organ, some in drawn.items() for sample in of_patients(some, own.images_per_patient, organ)]


def hospital_test_samples(
    data: DataSettings,
    holdings: Holdings,
    site: str,
    seed: int,
    withheld: frozenset[str] = frozenset(),
    unseen_task: str | None = None,
) -> list[Sample]:
    """What hospital `site` of a simulation evaluates on and never trains on.

    A partition keeps its `own_test` share for that. Else phantoms are drawn anew, as many as it trains on, withheld
    categories among them: a hospital that is dealt images from folders gets none.
    """
    if plan := plan_of(holdings):
        return list(dealt_out(data, plan, seed, withheld, unseen_task)[site].test)
    own = holdings[site]
    if not isinstance(data, PhantomData) or not isinstance(own, PhantomHolding):
        return []
    seed = derive(seed, "hospital test", site)
    draws = (_draw(data, organ, own.normal, own.abnormal, own.style, seed, frozenset()) for organ in own.organs)
    return [sample for drawn in draws for sample in drawn]


def dealt_out(
    data: DataSettings, plan: PartitionSettings, seed: int, withheld: frozenset[str], unseen_task: str | None
) -> Mapping[str, Dealt]:
    """What a partition gives to each hospital, by name; worked out once. Raises as hospital_samples."""
    return _dealt_out(data.model_dump_json(), plan.model_dump_json(), seed, withheld, unseen_task)


@lru_cache(maxsize=4)
def _dealt_out(
    data_text: str, plan_text: str, seed: int, withheld: frozenset[str], unseen_task: str | None
) -> Mapping[str, Dealt]:
    data, plan = _DATA.validate_json(data_text), PartitionSettings.model_validate_json(plan_text)
    whole = {EVERYTHING: _everything(data, plan, unseen_task)}
    return dealt(hospital_samples(data, whole, EVERYTHING, seed, withheld, unseen_task), plan, seed)


def _everything(data: DataSettings, plan: PartitionSettings, unseen_task: str | None) -> Holding:
    """The holding of a single hospital that gets all train images but the server's pool."""
    if isinstance(data, PhantomData):
        organs = plan.organs or tuple(organ for organ in ORGANS if organ != unseen_task)
        normal, abnormal = (PER_ORGAN if count is None else count for count in (plan.normal, plan.abnormal))
        return PhantomHolding(kind="phantoms", organs=organs, normal=normal, abnormal=abnormal)
    if isinstance(data, CollectionData):
        return CollectionHolding(kind="collection", tasks=tuple(task for task in data.tasks if task != unseen_task))
    return FolderHolding(kind="folder")


def server_samples(
    data: DataSettings,
    holdings: Holdings,
    seed: int,
    withheld: frozenset[str],
    unseen_task: str | None,
) -> tuple[list[Sample], list[Sample]]:
    """The server's support pool and its test images; only the test images show `withheld` categories.

    Phantoms: scanner style 0, `data.organs` (or every organ that a hospital holds) and the unseen one, `data.pool`
    images per class.
    Folders: the pool is taken from train before the hospitals get theirs. Raises as hospital_samples, and DataError
    when there is no test image or no normal image for the pool.
    """
    if plan := plan_of(holdings):
        holdings = {EVERYTHING: _everything(data, plan, unseen_task)}
    if isinstance(data, FolderData):
        pool, test = list(_split(data, holdings, seed, withheld, unseen_task).pool), list(scan(data).test)
        if not test:
            raise DataError(f"{data.root} has no test images; put some into test/CLASS or call their split test")
        if not any(sample.is_normal for sample in pool):
            raise DataError(f"{data.root} has too few normal train images or patients for a support pool; add some")
        return pool, test
    if isinstance(data, CollectionData):
        return collection_bed(data, _collected(data, holdings, withheld, unseen_task), seed, withheld, unseen_task)
    organs = _tested_organs(data, _phantom_holdings(holdings, withheld, unseen_task), unseen_task)
    pool, test = [], []
    for organ in [*organs, unseen_task] if unseen_task else organs:
        kinds = len(set(ORGANS[organ].kinds) - withheld)
        pool += _draw(data, organ, data.pool, data.pool * kinds, 0, derive(seed, "pool"), withheld)
        test += _draw(data, organ, data.test_normal, data.test_abnormal, 0, derive(seed, "test"), frozenset())
    return pool, test


def _tested_organs(
    data: PhantomData, held: Mapping[str, PhantomHolding], unseen_task: str | None
) -> tuple[str, ...] | list[str]:
    if data.organs is None:
        if not held:
            raise ConfigError("no hospital states what it holds; name the organs that the server tests on: data.organs")
        return sorted({organ for own in held.values() for organ in own.organs})
    check_names(data.organs, ORGANS, "organ of data.organs:")
    if unseen_task in data.organs:
        raise ConfigError(f"unseen_task {unseen_task!r} is tested anyway; take it from data.organs")
    return data.organs


def site_samples(data: FolderData) -> list[Sample]:
    """All train images of a real hospital. Raises DataError when there are none."""
    if not (samples := list(scan(data).train)):
        raise DataError(f"{data.root} has no train images; put some into train/CLASS or call their split train")
    return samples


def found(data: DataSettings) -> str | None:
    """One sentence on what lies under a data set's root; None for phantoms. Raises DataError as `listing`."""
    if isinstance(data, CollectionData):
        return "; ".join(f"{task}: {listing(folder).found}" for task, folder in data.tasks.items())
    return listing(data).found if isinstance(data, FolderData) else None


def skipped(data: DataSettings, progress: OnFile | None = None) -> tuple[Skipped, ...]:
    """The files of a data set that were left out, and why; phantoms leave out none."""
    if isinstance(data, CollectionData):
        return tuple(image for folder in data.tasks.values() for image in scan(folder, progress).skipped)
    return scan(data, progress).skipped if isinstance(data, FolderData) else ()


def _split(
    data: FolderData, holdings: Holdings, seed: int, withheld: frozenset[str], unseen_task: str | None
) -> Partition:
    if unseen_task is not None:
        raise ConfigError(f"unseen_task {unseen_task!r} needs phantoms: folder data is one task; remove unseen_task")
    folder = {site: own for site, own in holdings.items() if isinstance(own, FolderHolding)}
    _check_kind(holdings, folder, "folder")
    images = scan(data)
    known = {name for sample in (*images.train, *images.test) for name in sample.categories}
    check_names(withheld, known, "withheld category")
    return partition(images.train, folder, normal_names(data), data.pool, seed, withheld)


def _phantom_holdings(
    holdings: Holdings, withheld: frozenset[str], unseen_task: str | None
) -> dict[str, PhantomHolding]:
    held = {site: own for site, own in holdings.items() if isinstance(own, PhantomHolding)}
    _check_kind(holdings, held, "phantoms")
    check_names(withheld, {kind for organ in ORGANS.values() for kind in organ.kinds}, "withheld category")
    for site, own in held.items():
        check_names(own.organs, ORGANS, f"organ of hospital {site!r}:")
        if unseen_task in own.organs:
            raise ConfigError(f"unseen_task {unseen_task!r} is held by hospital {site!r}; take it from its organs")
    check_names([unseen_task] if unseen_task else [], ORGANS, "unseen_task")
    return held


def _collected(
    data: CollectionData, holdings: Holdings, withheld: frozenset[str], unseen_task: str | None
) -> dict[str, CollectionHolding]:
    held = {site: own for site, own in holdings.items() if isinstance(own, CollectionHolding)}
    _check_kind(holdings, held, "collection")
    check_tasks(data, held, withheld, unseen_task)
    return held


def _check_kind(holdings: Holdings, fitting: Mapping[str, Holding], kind: str) -> None:
    if other := sorted(holdings.keys() - fitting.keys()):
        raise ConfigError(f"hospital {other[0]!r} has a holding of another kind than the data; give it kind: {kind}")


def _draw(
    data: PhantomData, organ: str, normal: int, abnormal: int, style: int, seed: int, withheld: frozenset[str]
) -> Sequence[Sample]:
    exclude = frozenset((organ, kind) for kind in ORGANS[organ].kinds if kind in withheld)
    return phantom_set(
        organ, normal, abnormal, style, seed, data.pose_jitter, data.lesion_contrast, exclude, data.multiple
    )
