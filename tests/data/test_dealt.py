"""What hospitals of a plan hold in the end: whole pipeline on phantoms and on files."""

import csv
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fed_fsad.data.build import dealt_out, hospital_samples, hospital_test_samples, server_samples
from fed_fsad.data.dealt import Dealt, table
from fed_fsad.data.phantoms import STYLES, PhantomSource
from fed_fsad.data.plan import Allotted, PartitionSettings
from fed_fsad.data.settings import CollectionData, DataSettings, FolderData, PhantomData
from fed_fsad.errors import ConfigError, DataError
from tests.conftest import MakeFolder, write_image

PHANTOMS = PhantomData(kind="phantoms", test_normal=2, test_abnormal=2, pool=3)
NOBODY: frozenset[str] = frozenset()


def plan(by: str = "patient", hospitals: int = 3, **more: Any) -> PartitionSettings:
    keys = {"by": by, "hospitals": hospitals, "organs": ("oct", "liver_ct"), "normal": 20, "abnormal": 12}
    return PartitionSettings.model_validate({**keys, **more})


def given(chosen: PartitionSettings, data: DataSettings = PHANTOMS, seed: int = 0) -> Mapping[str, Dealt]:
    return dealt_out(data, chosen, seed, NOBODY, None)


def ids(found: Mapping[str, Dealt]) -> list[str]:
    return [sample.id for own in found.values() for sample in (*own.train, *own.test)]


def files(root: Path) -> FolderData:
    return FolderData(kind="folder", root=root, pool=2)


def folder_plan(**more: Any) -> PartitionSettings:
    return plan(**{"organs": None, "normal": None, "abnormal": None, "by": "patient", **more})


def test_phantoms_are_dealt_whole_and_never_to_the_server() -> None:
    found = given(plan())
    assert len(set(ids(found))) == len(ids(found)) == 2 * (20 + 12)
    holdings = {name: Allotted(plan=plan()) for name in plan().names}
    assert hospital_samples(PHANTOMS, holdings, "site-02", 0, NOBODY, None) == list(found["site-02"].train)
    assert hospital_test_samples(PHANTOMS, holdings, "site-02", 0) == []
    pool, test = server_samples(PHANTOMS, holdings, 0, frozenset({"drusen"}), "fundus")
    assert {sample.task for sample in test} == {"oct", "liver_ct", "fundus"}
    assert not {sample.id for sample in (*pool, *test)} & set(ids(found))
    assert given(plan(), seed=1) != found
    without = dealt_out(PHANTOMS, plan(organs=None), 0, frozenset({"drusen"}), "fundus")
    held = {(sample.task, *sample.categories) for own in without.values() for sample in own.train}
    assert not {one for one in held if "fundus" in one or "drusen" in one}


def test_a_tiny_site_keeps_few_images_of_one_organ_and_the_others_keep_theirs() -> None:
    whole, tiny = given(plan()), given(plan(tiny=7))
    assert len(tiny["site-01"].train) == 7
    assert len({sample.task for sample in tiny["site-01"].train}) == 1
    assert set(tiny["site-01"].train) <= set(whole["site-01"].train)
    assert tiny["site-02"] == whole["site-02"]


def test_each_hospital_lacks_categories_of_its_own() -> None:
    whole, less = given(plan()), given(plan(missing=2))
    for name, own in less.items():
        kinds = {kind for sample in own.train for kind in sample.categories}
        assert len({kind for sample in whole[name].train for kind in sample.categories} - kinds) == 2
        assert set(own.train) == {sample for sample in whole[name].train if set(sample.categories) <= kinds}


def test_hospitals_are_named_or_numbered_where_they_differ() -> None:
    whole = given(plan())
    less = given(plan(tiny={2: 5, "site-03": 6}, missing={"every": 1, "3": 0}, lacks={3: ["steatosis"]}))
    assert [len(own.train) for own in less.values()][1:] == [5, 6]
    kinds = {name: [{k for s in own[name].train for k in s.categories} for own in (whole, less)] for name in whole}
    assert len(kinds["site-01"][0] - kinds["site-01"][1]) == 1
    only = given(plan(lacks={3: ["drusen"]}))
    lost = set(whole["site-03"].train) - set(only["site-03"].train)
    assert {kind for sample in lost for kind in sample.categories} == {"drusen"}
    assert only["site-01"] == whole["site-01"]
    wrong = given(plan(wrong_labels={"every": 0.5, 2: 0.25}))
    shares = [len(own.truth) / len(own.train) for own in wrong.values()]
    assert shares == pytest.approx([0.5, 0.25, 0.5], abs=0.03)
    with pytest.raises(ConfigError, match=r"partition\.lacks: 'drussen' does not exist; did you mean 'drusen'"):
        given(plan(lacks={1: ["drussen"]}))


def test_wrong_labels_are_a_share_of_the_last_hospital_and_told_apart_from_the_truth() -> None:
    right, wrong = given(plan()), given(plan(wrong_labels=0.25))
    assert wrong["site-01"] == right["site-01"]
    before = {sample.id: sample for sample in right["site-03"].train}
    changed = {s.id: s for s in wrong["site-03"].train if s.categories != before[s.id].categories}
    assert len(changed) == round(0.25 * len(before))
    assert wrong["site-03"].truth == {name: before[name].categories for name in changed}
    known = {(s.task, kind) for own in right.values() for s in own.train for kind in s.categories}
    for name, sample in changed.items():
        assert sample.is_normal != before[name].is_normal
        assert all((sample.task, kind) in known for kind in sample.categories)
    rows = list(csv.DictReader(io.StringIO(table(wrong, "site"))))
    assert [row["id"] for row in rows if row["label"] != row["true_label"]] == list(wrong["site-03"].truth)
    assert Counter(row["hospital"] for row in rows) == {name: len(own.train) for name, own in wrong.items()}


def test_a_share_is_kept_for_the_hospitals_own_evaluation() -> None:
    found = given(plan(own_test=0.25))
    assert sorted(ids(found)) == sorted(ids(given(plan())))
    for own in found.values():
        assert 0.15 < len(own.test) / len(own.train + own.test) < 0.35
        assert {sample.is_normal for sample in own.test} == {True, False}
    holdings = {name: Allotted(plan=plan(own_test=0.25)) for name in plan().names}
    assert hospital_test_samples(PHANTOMS, holdings, "site-01", 0) == list(found["site-01"].test)


def test_phantom_hospitals_have_a_scanner_each_and_share_no_patient() -> None:
    for place, own in enumerate(given(plan(hospitals=7, shift=1.0, wrong_labels=0.5, least=1)).values()):
        sources = [sample.source for sample in own.train]
        assert {s.style for s in sources if isinstance(s, PhantomSource)} == {place % len(STYLES)}
        assert all(
            isinstance(s, PhantomSource) and s.id == sample.id for s, sample in zip(sources, own.train, strict=True)
        )
        assert set(own.truth) <= {sample.id for sample in own.train}


def test_files_are_shifted_at_reading_hospital_by_hospital(make_folder: MakeFolder) -> None:
    root = make_folder({"train/normal": 24, "train/x": 12, "test/normal": 2, "test/x": 2})
    plain, shifted = given(folder_plan(), files(root)), given(folder_plan(shift=1.0), files(root))
    ways = []
    for name, own in shifted.items():
        one, two = plain[name].train[0], own.train[0]
        assert (one.id, one.categories) == (two.id, two.categories)
        assert one.look != two.look
        image = two.source.image(32)
        assert image.dtype == np.float32
        assert 0 <= image.min() < image.max() <= 1
        assert np.abs(image - one.source.image(32)).mean() > 0.005
        ways.append(two.look)
    assert len(set(ways)) == len(ways)
    assert given(folder_plan(shift=0.1), files(root))["site-01"].train[0].look not in ways


def test_files_by_any_column_of_their_manifest(tmp_path: Path) -> None:
    rows = ["path,split,label,patient,site,Scanner"]
    for i in range(30):
        write_image(tmp_path / f"{i}.png", i)
        split, site = "test" if i > 27 else "train", "north" if i < 14 else "south"
        rows.append(f"{i}.png,{split},{'x' if i % 3 == 0 else 'normal'},p{i // 2},{site},{'abc'[i // 2 % 3]}")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    data = files(tmp_path).model_copy(update={"columns": ("Scanner",)})
    for column, values in (("site", ["north", "south"]), ("Scanner", ["a", "b", "c"])):
        found = given(folder_plan(by="column", column=column, hospitals=len(values), least=2), data)
        assert [{dict(s.columns)[column] for s in own.train} for own in found.values()] == [{one} for one in values]
        patients = [sample for own in found.values() for sample in {sample.patient for sample in own.train}]
        assert len(set(patients)) == len(patients)
        written = list(csv.DictReader(io.StringIO(table(found, column))))
        assert {row["origin"] for row in written} == set(values)
        assert {row["hospital"] for row in written if row["origin"] == values[-1]} == {f"site-{len(values):02d}"}


def test_a_hospital_that_could_not_train_is_named() -> None:
    with pytest.raises(DataError, match=r"hospital 'site-01' would get 7 normal images .* partition\.least is 8; have"):
        given(plan(by="patient", hospitals=3, least=8))


def test_a_collection_is_dealt_over_all_its_tasks_but_the_unseen_one(tmp_path: Path) -> None:
    counts = {"train/normal": 16, "train/x": 8, "test/normal": 2, "test/x": 2}
    roots = [tmp_path / task for task in ("brain", "eye", "lung")]
    files_of = [root / folder / f"{i}.png" for root in roots for folder, count in counts.items() for i in range(count)]
    for seed, path in enumerate(files_of):
        write_image(path, seed)
    data = CollectionData.model_validate(
        {"kind": "collection", "tasks": {root.name: {"root": root} for root in roots}, "pool": 2}
    )
    silos = folder_plan(by="organ", hospitals=2)
    found = dealt_out(data, silos, 0, NOBODY, "lung")
    assert [{sample.task for sample in own.train} for own in found.values()] == [{"brain"}, {"eye"}]
    holdings = {name: Allotted(plan=silos) for name in silos.names}
    pool, test = server_samples(data, holdings, 0, NOBODY, "lung")
    assert {sample.task for sample in pool} == {sample.task for sample in test} == {"brain", "eye", "lung"}
    assert not {sample.id for sample in (*pool, *test)} & set(ids(found))
