"""A new split: whole patients, every class on both sides, the same from any order; and a clean manifest of it."""

import dataclasses
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fed_fsad.data.entries import Entry
from fed_fsad.data.manifest import list_manifest, write_manifest
from fed_fsad.data.phantoms import phantom
from fed_fsad.data.resplit import Resplit, Rules, resplit
from fed_fsad.data.scan import scan
from fed_fsad.data.settings import FolderData
from fed_fsad.data.split import split_entries
from fed_fsad.errors import DataError
from tests.conftest import MakeFolder, write_image


def entry(number: int, categories: tuple[str, ...] = (), patient: str | None = None) -> Entry:
    return Entry(f"{number:03}.png", Path(f"{number:03}.png"), "train", categories, None, patient)


def done(data: FolderData, keep_test: bool = False, alike: bool = True) -> Resplit:
    return resplit(data, Rules(keep_test=keep_test, alike=alike), lambda what, done, of: None)


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 15), st.sets(st.sampled_from("uvw"), max_size=3)), min_size=1, max_size=70),
    st.floats(0.1, 0.9),
    st.integers(0, 99),
)
def test_patients_stay_whole_and_the_order_changes_nothing(
    drawn: list[tuple[int, set[str]]], share: float, seed: int
) -> None:
    entries = [entry(i, tuple(sorted(own)), f"p{p}" if p else None) for i, (p, own) in enumerate(drawn)]
    found = split_entries(entries, share, seed)
    assert [dataclasses.replace(e, split="train") for e in found] == entries
    splits = defaultdict(set)
    for one in found:
        splits[one.patient].add(one.split)
    assert all(len(own) == 1 for patient, own in splits.items() if patient is not None)
    order = np.random.default_rng(seed).permutation(len(entries))
    other = split_entries([entries[i] for i in order], share, seed)
    assert sorted(other, key=lambda e: e.name) == found


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcd"), st.integers(1, 60), min_size=1),
    st.sampled_from([0.2, 0.3, 0.5]),
    st.integers(0, 99),
)
def test_every_class_gets_its_share_to_one_image(counts: dict[str, int], share: float, seed: int) -> None:
    labels = [name for name, count in counts.items() for _ in range(count)]
    found = split_entries([entry(i, (name,)) for i, name in enumerate(labels)], share, seed)
    tested = Counter(e.categories[0] for e in found if e.split == "test")
    for name, count in counts.items():
        assert abs(tested[name] - share * count) <= 1


def test_the_seed_makes_another_split() -> None:
    entries = [entry(i) for i in range(40)]
    assert split_entries(entries, 0.3, 1) == split_entries(entries, 0.3, 1) != split_entries(entries, 0.3, 2)


def test_a_split_is_read_back_as_it_was_written(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"train/normal": 12, "train/glioma": 8, "test/normal": 2, "masks/train/glioma": 8})
    found = done(FolderData(kind="folder", root=root))
    out = tmp_path / "elsewhere" / "list.csv"
    write_manifest(out, found.entries, root, "normal")
    data = FolderData(kind="folder", root=root, manifest=out)
    assert list_manifest(data) == list(found.entries)
    assert Counter(e.split for e in found.entries) == {"train": 16, "test": 6}
    write_manifest(out, done(FolderData(kind="folder", root=root)).entries, root, "normal")
    assert list_manifest(data) == list(found.entries)


def test_columns_of_ones_own_survive_a_new_manifest(tmp_path: Path) -> None:
    rows = ["a.png,train,normal,north,7T,", "b.png,train,x,,3T,old", "c.png,test,normal,,,", "d.png,test,x,east,,new"]
    (tmp_path / "m.csv").write_text("path,split,label,site,Field,batch\n" + "\n".join(rows))
    for number, name in enumerate("abcd"):
        write_image(tmp_path / f"{name}.png", number)
    data = FolderData(kind="folder", root=tmp_path, manifest=Path("m.csv"), columns=("batch", "Field"))
    found = done(data, keep_test=True)
    assert [dict(entry.columns) for entry in found.entries] == [
        {"site": "north", "Field": "7T"}, {"Field": "3T", "batch": "old"}, {}, {"site": "east", "batch": "new"},
    ]  # fmt: skip
    write_manifest(tmp_path / "n.csv", found.entries, tmp_path, "normal")
    assert list_manifest(data.model_copy(update={"manifest": Path("n.csv")})) == list(found.entries)


def test_hashed_patients_and_several_categories_survive_the_manifest(tmp_path: Path) -> None:
    rows = ["a.png,train,x,u;v,p1,", "b.png,train,healthy,,p1,", "c.png,test,healthy,,p2,", "d.png,test,w,,,"]
    (tmp_path / "m.csv").write_text("path,split,label,categories,patient,mask\n" + "\n".join(rows))
    for number, name in enumerate("abcd"):
        write_image(tmp_path / f"{name}.png", number)
    data = FolderData(kind="folder", root=tmp_path, manifest=Path("m.csv"), normal=("healthy",))
    found = done(data, keep_test=True)
    write_manifest(tmp_path / "n.csv", found.entries, tmp_path, "healthy")
    assert "p1" not in (tmp_path / "n.csv").read_text()
    again = list_manifest(data.model_copy(update={"manifest": Path("n.csv")}))
    assert [(e.name, e.split, e.categories) for e in again] == [
        ("a.png", "train", ("u", "v")), ("b.png", "train", ()), ("c.png", "test", ()), ("d.png", "test", ("w",)),
    ]  # fmt: skip
    assert again[0].patient == again[1].patient != again[2].patient
    assert again[3].patient is None


def test_what_would_stop_a_run_is_left_out(make_folder: MakeFolder) -> None:
    root = make_folder({"train/normal": 10, "train/glioma": 6, "test/normal": 4, "test/glioma": 3})
    shutil.copy(root / "train/normal/000.png", root / "test/normal/copy.png")
    shutil.copy(root / "train/normal/001.png", root / "train/glioma/wrong.png")
    shutil.copy(root / "test/normal/002.png", root / "test/normal/again.png")
    (root / "train/normal/009.png").write_text("no image")
    data = FolderData(kind="folder", root=root, normal=("normal",))
    with pytest.raises(DataError):
        scan(data)
    kept = done(data, keep_test=True, alike=False)
    assert kept.left_out == {
        "files that lie under different labels": ("train/glioma/wrong.png", "train/normal/001.png"),
        "further copies of a file": ("test/normal/again.png", "train/normal/000.png"),
    }
    write_manifest(root / "m.csv", kept.entries, root, "normal")
    found = scan(data.model_copy(update={"manifest": Path("m.csv")}))
    assert len(found.test) == 8, "all of the test part but one copy"
    assert [item.name for item in found.skipped] == ["train/normal/009.png"]
    write_manifest(root / "n.csv", done(data).entries, root, "normal")
    dealt = scan(data.model_copy(update={"manifest": Path("n.csv")}))
    assert len(dealt.train) + len(dealt.test) == len(found.train) + len(found.test)


def test_train_images_of_a_test_patient_are_left_out(tmp_path: Path) -> None:
    rows = ["a.png,train,normal,p1", "b.png,train,normal,p2", "c.png,test,normal,p1"]
    (tmp_path / "m.csv").write_text("path,split,label,patient\n" + "\n".join(rows))
    for number, name in enumerate("abc"):
        write_image(tmp_path / f"{name}.png", number)
    found = done(FolderData(kind="folder", root=tmp_path, manifest=Path("m.csv")), keep_test=True)
    assert [e.name for e in found.entries] == ["b.png", "c.png"]
    assert found.left_out == {"train images of a test patient": ("a.png",)}


def test_look_alikes_stay_on_one_side(tmp_path: Path) -> None:
    """Six pictures, each large and small; noise would look like nothing else, so these are drawn."""
    for number in range(6):
        drawn = phantom("oct", (), 0, number, 0).source.image(160).transpose(1, 2, 0)
        picture = Image.fromarray((drawn * 255).astype(np.uint8))
        for split, size in (("train", 160), ("test", 80)):
            (tmp_path / split / "normal").mkdir(parents=True, exist_ok=True)
            picture.resize((size, size)).save(tmp_path / split / "normal" / f"{number}.png")
    write_image(tmp_path / "train/normal/9.png", 9, (64, 64))
    (tmp_path / "train/normal/bad.png").write_text("no image")
    data = FolderData(kind="folder", root=tmp_path)
    kept = done(data, keep_test=True)
    assert kept.left_out == {
        "files that cannot be decoded": ("train/normal/bad.png",),
        "train images that look like a test image": tuple(f"train/normal/{i}.png" for i in range(6)),
    }
    dealt = done(data)
    sides = defaultdict(set)
    for one in dealt.entries:
        sides[one.path.stem].add(one.split)
    assert len(dealt.entries) == 13
    assert all(len(own) == 1 for own in sides.values()), sides
    assert {one.split for one in dealt.entries} == {"train", "test"}
    with_copies = done(data, keep_test=True, alike=False)
    assert len(with_copies.entries) == 14, "nothing is decoded and nothing compared"


def test_a_split_with_nothing_for_one_side(make_folder: MakeFolder) -> None:
    data = FolderData(kind="folder", root=make_folder({"train/normal": 1}))
    for keep_test in (True, False):
        with pytest.raises(DataError, match="no image would be left for test; add images or patients"):
            done(data, keep_test)


def test_a_class_that_a_manifest_cannot_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the class name 'a;b' holds a separator of manifests; rename it"):
        write_manifest(tmp_path / "m.csv", [entry(1, ("a;b",))], tmp_path, "normal")
