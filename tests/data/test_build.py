"""Who gets which images: hospitals and server, on folders and on phantoms."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from fed_fsad.data.build import hospital_samples, server_samples, site_samples, skipped
from fed_fsad.data.phantoms import ORGANS
from fed_fsad.data.samples import Sample
from fed_fsad.data.settings import DataSettings, FolderData, FolderHolding, Holding, PhantomData, PhantomHolding
from fed_fsad.errors import ConfigError, DataError
from tests.conftest import MakeFolder

NOTHING: frozenset[str] = frozenset()
PHANTOMS = PhantomData(kind="phantoms", test_normal=5, test_abnormal=12, pool=3)
WITHHELD = ORGANS["brain_mri"].kinds[0]
WORLD: dict[str, Holding] = {
    "a": PhantomHolding(kind="phantoms", organs=("brain_mri", "oct"), style=1, normal=6, abnormal=8),
    "b": PhantomHolding(kind="phantoms", organs=("brain_mri",), style=2, normal=4, abnormal=0),
}


def counts(samples: Sequence[Sample]) -> Counter[tuple[str, bool]]:
    return Counter((sample.task, sample.is_normal) for sample in samples)


def kinds(samples: Sequence[Sample]) -> set[str]:
    return {name for sample in samples for name in sample.categories}


def folder(root: Path, pool: int = 2) -> FolderData:
    return FolderData(kind="folder", root=root, task="oct", pool=pool)


def test_phantom_hospitals_hold_what_their_settings_say() -> None:
    withheld = frozenset({WITHHELD})
    found = {site: hospital_samples(PHANTOMS, WORLD, site, 3, withheld, "fundus") for site in WORLD}
    assert counts(found["a"]) == {
        (organ, normal): 6 if normal else 8 for organ in ("brain_mri", "oct") for normal in (0, 1)
    }
    assert counts(found["b"]) == {("brain_mri", True): 4}
    assert kinds(found["a"]) <= {*ORGANS["brain_mri"].kinds, *ORGANS["oct"].kinds} - withheld
    assert {getattr(sample.source, "style", None) for sample in found["a"]} == {1}
    assert hospital_samples(PHANTOMS, WORLD, "a", 3, withheld, "fundus") == found["a"]
    ids = [sample.id for own in found.values() for sample in own]
    other = hospital_samples(PHANTOMS, WORLD, "a", 4, withheld, "fundus")
    assert not {sample.id for sample in other} & set(ids)


def test_phantoms_have_patients_where_the_holding_says_so() -> None:
    data = PhantomData(kind="phantoms")
    holds = {"a": PhantomHolding(kind="phantoms", organs=("oct", "fundus"), normal=3, abnormal=2, images_per_patient=2)}
    own = hospital_samples(data, holds, "a", 0, frozenset(), None)
    assert [sample.patient for sample in own] == [
        f"{organ} {n}" for organ in ("oct", "fundus") for n in (0, 0, 1, 1, 2)
    ]
    assert all(sample.patient_known for sample in own)
    unknown = {"a": holds["a"].model_copy(update={"images_per_patient": None})}
    assert {sample.patient for sample in hospital_samples(data, unknown, "a", 0, frozenset(), None)} == {None}


def test_phantom_server_sees_every_organ_and_the_withheld_kind_only_in_test() -> None:
    withheld = frozenset({WITHHELD})
    pool, test = server_samples(PHANTOMS, WORLD, 3, withheld, "fundus")
    organs = ("brain_mri", "oct", "fundus")
    assert counts(test) == {(organ, normal): 5 if normal else 12 for organ in organs for normal in (True, False)}
    per_class = Counter((sample.task, sample.categories) for sample in pool)
    seen = {(organ, (kind,)) for organ in organs for kind in ORGANS[organ].kinds if kind != WITHHELD}
    assert per_class == dict.fromkeys({*seen, *((organ, ()) for organ in organs)}, 3)
    assert WITHHELD in kinds(test)
    hospitals = [s for site in WORLD for s in hospital_samples(PHANTOMS, WORLD, site, 3, withheld, "fundus")]
    ids = [sample.id for sample in (*pool, *test, *hospitals)]
    assert len(ids) == len(set(ids))
    assert skipped(PHANTOMS) == ()


def test_no_two_parties_draw_the_same_anatomy() -> None:
    """Ids differ by style alone already; what must differ is the seed behind the drawing."""
    pool, test = server_samples(PHANTOMS, WORLD, 3, NOTHING, None)
    parties = [pool, test, *(hospital_samples(PHANTOMS, WORLD, site, 3, NOTHING, None) for site in WORLD)]
    seeds = [{getattr(sample.source, "seed", None) for sample in own} for own in parties]
    assert all(len(own) == 1 for own in seeds)
    assert len(set.union(*seeds)) == 4


def test_folder_parties_share_nothing(make_folder: MakeFolder) -> None:
    root = make_folder({"train/normal": 16, "train/CNV": 12, "train/DME": 12, "test/normal": 3, "test/DME": 2})
    (root / "train/normal/bad.png").write_text("bad")
    data = folder(root)
    held: dict[str, Holding] = {
        "a": FolderHolding(kind="folder", share=3),
        "b": FolderHolding(kind="folder", lacks=("CNV",)),
    }
    withheld = frozenset({"DME"})
    pool, test = server_samples(data, held, 1, withheld, None)
    parties = [pool, *(hospital_samples(data, held, site, 1, withheld, None) for site in held)]
    assert [counts(own) for own in parties[:1]] == [{("oct", True): 2, ("oct", False): 2}]
    assert [kinds(own) for own in parties] == [{"CNV"}, {"CNV"}, set()]
    assert sum(map(len, parties)) == len({sample.id for own in parties for sample in own}) == 28
    assert Counter(sample.categories for sample in test) == {(): 3, ("DME",): 2}
    assert [item.name for item in skipped(data)] == ["train/normal/bad.png"]
    assert len(site_samples(data)) == 40


def test_folders_that_lack_what_a_party_needs(make_folder: MakeFolder) -> None:
    held: dict[str, Holding] = {"a": FolderHolding(kind="folder")}
    root = make_folder({"train/normal": 3, "train/CNV": 3})
    with pytest.raises(DataError, match="has no test images"):
        server_samples(folder(root), held, 1, NOTHING, None)
    (root / "train/CNV").rename(root / "CNV")
    (root / "test").mkdir()
    (root / "CNV").rename(root / "test/CNV")
    with pytest.raises(DataError, match="too few normal train images or patients for a support pool"):
        server_samples(folder(root, pool=1), held, 1, NOTHING, None)
    (root / "train/normal").rename(root / "test/normal")
    (root / "train").rmdir()
    with pytest.raises(DataError, match="has no train images"):
        site_samples(FolderData(kind="folder", root=root, task="again"))


def test_impossible_settings_name_the_nearest_right_one(make_folder: MakeFolder) -> None:
    data = folder(make_folder({"train/normal": 8, "train/CNV": 4, "test/normal": 1, "test/rare": 1}))
    here: dict[str, Holding] = {"a": FolderHolding(kind="folder")}
    typo: dict[str, Holding] = {"a": PhantomHolding(kind="phantoms", organs=("brain_mir",))}
    assert hospital_samples(data, here, "a", 1, frozenset({"rare"}), None)  # known from test alone
    cases: list[tuple[DataSettings, dict[str, Holding], str, str | None, str]] = [
        (PHANTOMS, typo, "", None, "organ of hospital 'a': 'brain_mir' does not exist; did you mean 'brain_mri'"),
        (PHANTOMS, WORLD, "", "fundos", "unseen_task 'fundos' does not exist; did you mean 'fundus'"),
        (PHANTOMS, WORLD, "", "oct", "unseen_task 'oct' is held by hospital 'a'"),
        (PHANTOMS, WORLD, "hydrocefalus", None, "'hydrocefalus' does not exist; did you mean 'hydrocephalus'"),
        (PHANTOMS, here, "", None, "hospital 'a' has a holding of another kind than the data; give it kind: phantoms"),
        (data, WORLD, "", None, "give it kind: folder"),
        (data, here, "CMV", None, "withheld category 'CMV' does not exist; did you mean 'CNV'"),
        (data, here, "", "fundus", "unseen_task 'fundus' needs phantoms"),
    ]
    for settings, held, withheld, unseen, message in cases:
        with pytest.raises(ConfigError, match=message):
            hospital_samples(settings, held, "a", 1, frozenset(filter(None, [withheld])), unseen)
        with pytest.raises(ConfigError, match=message):
            server_samples(settings, held, 1, frozenset(filter(None, [withheld])), unseen)
    with pytest.raises(ConfigError, match="hospital 'z' does not exist; choose from a, b"):
        hospital_samples(PHANTOMS, WORLD, "z", 1, NOTHING, None)
