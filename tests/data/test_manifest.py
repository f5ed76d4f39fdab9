"""Manifests as people write them, and every way in which one is refused, with its line."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fed_fsad.data.entries import Entry
from fed_fsad.data.manifest import list_manifest
from fed_fsad.data.settings import FolderData
from fed_fsad.errors import DataError


def listed(root: Path, text: str | bytes, normal: tuple[str, ...] = ("normal",)) -> list[Entry]:
    (root / "m.csv").write_bytes(text.encode() if isinstance(text, str) else text)
    data = FolderData(kind="folder", root=root, manifest=Path("m.csv"), task="oct", normal=normal)
    return list_manifest(data)


def test_every_column(tmp_path: Path) -> None:
    entries = listed(
        tmp_path,
        "path,split,label,categories,patient,mask\n"
        "a/1.png,train,normal,,p1,\n"
        "a/2.png,test,abnormal,drusen; CNV,p1,m/2.png\n"
        "\n"
        "a\\3.png,test,DME,,,\n",
    )
    assert [(e.name, e.split, e.categories, e.mask) for e in entries] == [
        ("a/1.png", "train", (), None),
        ("a/2.png", "test", ("CNV", "drusen"), tmp_path / "m/2.png"),
        ("a/3.png", "test", ("DME",), None),
    ]
    assert entries[0].path == tmp_path / "a/1.png"
    assert entries[0].patient == entries[1].patient is not None
    assert entries[2].patient is None


def test_labels_never_come_from_the_path(tmp_path: Path) -> None:
    entries = listed(
        tmp_path, "path,split,label\ntrain/good/1.png,train,Ungood\ntrain/bad/2.png,test,good\n", ("good",)
    )
    assert [(e.split, e.categories) for e in entries] == [("train", ("Ungood",)), ("test", ())]


def test_a_column_that_the_settings_name_and_the_table_lacks(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,split,label,scanner\n1.png,train,normal,A\n")
    data = FolderData(kind="folder", root=tmp_path, manifest=Path("m.csv"), columns=("Scanner",))
    with pytest.raises(DataError, match=r"m\.csv: column 'scanner' is unknown"):
        list_manifest(data)
    (tmp_path / "m.csv").write_text("path,split,label\n1.png,train,normal\n")
    with pytest.raises(DataError, match=r"m\.csv has no column 'Scanner', which data\.columns lists; add it"):
        list_manifest(data)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_separators_line_ends_and_a_byte_order_mark(tmp_path: Path, separator: str, end: str) -> None:
    rows = ["Label,path,split,categories", 'x,"a, b.png",train,u|v', "normal,2.png,test,"]
    if separator != ",":
        rows = [rows[0].replace(",", separator), separator.join(["x", "a, b.png", "train", '"u|v"']), rows[2]]
        rows[2] = rows[2].replace(",", separator)
    entries = listed(tmp_path, "\ufeff" + end.join(rows))
    assert [(e.name, e.categories) for e in entries] == [("a, b.png", ("u", "v")), ("2.png", ())]


def test_patient_hashes_group_but_do_not_tell(tmp_path: Path) -> None:
    text = "path,split,label,patient\n1.png,train,normal,Smith\n2.png,train,normal,Smith\n3.png,train,normal,Jones\n"
    first, again, other = (entry.patient for entry in listed(tmp_path, text))
    assert first == again != other
    assert first is not None
    assert "smith" not in first.lower()
    assert [entry.patient for entry in listed(tmp_path, text)] == [first, again, other]
    assert listed(tmp_path, text + "4.png,train,normal,Kim\n")[0].patient != first


HEAD = "path,split,label,patient\n1.png,train,normal,\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line must name path, split, label"),
        ("path split label\n", "first line must name"),
        ("path,split,patient\n", "no column 'label'"),
        ("path,split,label,patients\n", "did you mean 'patient'"),
        ("path,split,label,age\n", "column 'age' is unknown; remove it, list it under data.columns if"),
        ("path,split,label,path\n", "a column twice"),
        ("path,split,label,Mask,mask\n", "a column twice"),
        ("path,split,lable\n", "no column 'label'; did you mean 'lable' there?"),
        ("path,split,label\n", "lists no image"),
        (HEAD + "1.png,train,x,\n", "line 3: 1.png is listed differently in line 2"),
        (HEAD + "2.png,val,x,\n", "line 3: split 'val' is unknown; write train or test"),
        (HEAD + "2.png,train,,\n", "line 3: the label is empty"),
        (HEAD + ",train,x,\n", "line 3: the path is empty"),
        (HEAD + "2.png,train,x\n", "line 3: 3 cells where the header has 4"),
        (HEAD + "2.png,train,x,,,\n", "line 3: 6 cells where the header has 4"),
        (HEAD + '"2.png,train,x,\n', "no valid CSV"),
        (HEAD + "../2.png,train,x,\n", "line 3: path ../2.png leaves the data set's root"),
        (HEAD + "a/../2.png,train,x,\n", "leaves the data set's root"),
        (HEAD + "..\\2.png,train,x,\n", "leaves the data set's root"),
        (HEAD + "/etc/passwd,train,x,\n", "leaves the data set's root"),
        (HEAD + "C:\\2.png,train,x,\n", "leaves the data set's root"),
        (HEAD + "a\0b.png,train,x,\n", "leads nowhere"),
        ("path,split,label,mask\n1.png,train,x,../m.png\n", "line 2: mask ../m.png leaves"),
        ("path,split,label,categories\n1.png,train,normal,x\n", "line 2: .*normal and abnormal at once"),
        ("path,split,label,categories\n1.png,train,x,normal|x\n", "line 2: .*normal and abnormal at once"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        listed(tmp_path, text)


@pytest.mark.parametrize(
    ("labels", "wrong", "right"),
    [
        (["normal", "nomral"], "nomral", "normal"),
        (["normal", "Normal"], "Normal", "normal"),
        (["normal", "glioma", "glioma", "gliomma"], "gliomma", "glioma"),
        (
            ["normal", "pleural effusion", "pleural_effusion", "pleural_effusion"],
            "pleural effusion",
            "pleural_effusion",
        ),
    ],
)
def test_a_misspelled_label_is_named_with_the_right_one(
    tmp_path: Path, labels: list[str], wrong: str, right: str
) -> None:
    rows = [f"{i}.png,train,{label}" for i, label in enumerate(labels)]
    with pytest.raises(DataError, match=f"m.csv: the class '{wrong}' looks misspelled; did you mean '{right}'"):
        listed(tmp_path, "path,split,label\n" + "\n".join(rows))


def test_names_that_differ_on_purpose_are_let_pass(tmp_path: Path) -> None:
    labels = ["normal", "abnormal", "grade1", "grade2", "grade11", "type a", "type b", "MH", "MHL", "CNV", "DME"]
    rows = [f"{i}.png,train,{label}" for i, label in enumerate(labels)]
    assert len(listed(tmp_path, "path,split,label\n" + "\n".join(rows))) == len(labels)
    assert len(listed(tmp_path, "path,split,label\n0.png,train,normal\n", ("normal", "Normal"))) == 1


def test_hundreds_of_classes_are_not_compared_with_each_other(tmp_path: Path) -> None:
    """It would take minutes for the thousands that a wrong column gives."""
    rows = [f"{i}.png,train,{label}" for i, label in enumerate([*map(str, range(300)), "glioma", "gliomma"])]
    assert len(listed(tmp_path, "path,split,label\n" + "\n".join(rows))) == 302
    with pytest.raises(DataError, match="looks misspelled"):
        listed(tmp_path, "path,split,label\n" + "\n".join(rows[4:]))


def test_a_file_that_is_no_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fed_fsad.data.tables.MAX_BYTES", 1 << 20)
    with pytest.raises(DataError, match=r"m\.csv is larger than 1 MiB, which is no list of images; correct data"):
        listed(tmp_path, b"x" * ((1 << 20) + 1))


def test_one_file_may_be_listed_once_per_part(tmp_path: Path) -> None:
    head = "path,split,label,part\n"
    first, second = listed(tmp_path, head + "a.nii.gz,train,normal,axial-010\na.nii.gz,train,x,axial-020\n")
    assert (first.part, second.part) == ("axial-010", "axial-020")
    with pytest.raises(DataError, match=r"line 3: a\.nii\.gz is listed differently in line 2"):
        listed(tmp_path, head + "a.nii.gz,train,normal,axial-010\na.nii.gz,train,x,axial-010\n")


def test_links_that_leave_the_root(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    (tmp_path / "secret.png").touch()
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "real.png").touch()
    (root / "in.png").symlink_to(root / "real.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    head = "path,split,label\n"
    assert listed(root, head + "in.png,train,x\n")[0].name == "in.png"
    with pytest.raises(DataError, match=r"line 2: path out\.png leaves"):
        listed(root, head + "out.png,train,x\n")
    with pytest.raises(DataError, match=r"line 2: .*leads nowhere"):
        listed(root, head + "loop.png,train,x\n")


def test_a_line_repeated_word_for_word_is_kept_for_the_scan_to_skip(tmp_path: Path) -> None:
    first, second, again = listed(tmp_path, HEAD + "2.png,train,x,p\n2.png,train,x,p\n")
    assert second == again != first


def test_manifests_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not UTF-8"):
        listed(tmp_path, "path,split,label\nü.png,train,x\n".encode("latin-1"))
    data = FolderData(kind="folder", root=tmp_path, manifest=Path("gone.csv"), task="oct")
    with pytest.raises(DataError, match=r"gone\.csv cannot be read"):
        list_manifest(data)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.sampled_from([b"", b"path,split,label\n", b"path;split;label;mask\nx;train;"]))
def test_random_bytes_raise_nothing_else(tmp_path: Path, data: bytes, start: bytes) -> None:
    with contextlib.suppress(DataError):
        assert listed(tmp_path, start + data)
