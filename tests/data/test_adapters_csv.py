"""Label files as they should not be: each ends with one sentence that names the file, the line and the remedy."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fed_fsad.data.adapters import listing
from fed_fsad.data.settings import FolderData
from fed_fsad.errors import DataError
from tests.data import test_adapters as sets

Build = Callable[[Path], None]


def changed(root: Path, build: Build, file: str, change: Callable[[str], str]) -> FolderData:
    """The set with one label file changed."""
    build(root)
    before = (root / file).read_text(encoding="utf-8")
    after = change(before)
    assert after != before
    (root / file).write_text(after, encoding="utf-8")
    return FolderData(kind="folder", root=root)


def append(line: str) -> Callable[[str], str]:
    return lambda text: text + line + "\n"


def swap(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new, 1)


RSNA, APTOS, NIH = "stage_2_detailed_class_info.csv", "train.csv", "Data_Entry_2017.csv"
VINDR, RFMID = "annotations/image_labels_train.csv", "Training_Set/Training_Set/RFMiD_Training_Labels.csv"
BAD: list[tuple[Build, str, Callable[[str], str], str]] = [
    (sets.rsna, RSNA, append("p3,Normla"), r"csv, line 16: class 'Normla' is unknown; did you mean 'Normal'\?"),
    (sets.rsna, RSNA, append("p3,Lung Opacity"), "line 16: p3 is listed as another class before; remove one of"),
    (sets.rsna, RSNA, swap("patientId", "patient"), r"has no column 'patientId'; did you mean 'patient' there\? its"),
    (sets.rsna, RSNA, append('p3,"Normal'), r"line 16: no valid CSV \(.*\); mend its quotes"),
    (sets.aptos2019, APTOS, append("00000000000a,0"), "line 22: 00000000000a is listed again; remove one"),
    (sets.aptos2019, APTOS, append("00000000000b,0"), "line 22: 00000000000b is listed again with another label than"),
    (sets.aptos2019, APTOS, append("x,5"), "line 22: diagnosis '5' is unknown; choose from 0, 1, 2, 3, 4"),
    (sets.aptos2019, APTOS, append("x"), "line 22: 1 cells where the header has 2; quote cells with separators"),
    (sets.chestxray14, NIH, swap("Pneumonia", "Pnuemonia"), r"line 5: finding 'Pnuemonia' .*did you mean 'Pneumonia'"),
    (sets.chestxray14, NIH, swap("00000003_000", "00000004_000"), "line 5: 00000004_000.png is in neither train_val"),
    (sets.chestxray14, NIH, swap("00000003_000", "00000002_000"), "line 5: 00000002_000.png is listed again"),
    (sets.chestxray14, "test_list.txt", append("00000001_000.png"), "00000001_000.png is in both train_val_list.txt"),
    (sets.vindr_cxr, VINDR, swap("b,R1,0,0,1", "b,R1,0,0,x"), "line 4: No finding 'x' is unknown; choose from 0"),
    (sets.vindr_cxr, VINDR, append("f,R1,0,0,0"), "image f has no label at all; restore the label files"),
    (sets.vindr_kaggle, APTOS, append("i1,Nodle/Mass,1,R1,,,,"), r"'Nodle/Mass' .*did you mean 'Nodule/Mass'"),
    (sets.odir5k, "full_df.csv", swap("['D']", "['Z']"), r"line \d+: labels \"\['Z'\]\" is unknown; write letters of"),
    (sets.rfmid, RFMID, swap("2,1,1,1", "2,1,1,7"), "line 3: MH '7' is unknown; choose from 0, 1"),
    (sets.idrid, "2. Groundtruths/b. IDRiD_Disease Grading_Testing Labels.csv", swap("002,0", "002,6"),
     "line 3: Retinopathy grade '6' is unknown"),
    (sets.medianomaly, "data.json", swap('"test"', '"tset"'), "data.json has no list of file names under test > 0"),
    (sets.medianomaly, "data.json", swap("{", "["), r"data\.json is no readable JSON"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("build", "file", "change", "message"), BAD, ids=[f"{build.__name__}-{n}" for n, (build, *_) in enumerate(BAD)]
)
def test_a_wrong_line_is_named(
    tmp_path: Path, build: Build, file: str, change: Callable[[str], str], message: str
) -> None:
    data = changed(tmp_path, build, file, change)
    with pytest.raises(DataError, match=message) as caught:
        listing(data)
    assert "\n" not in str(caught.value)
    assert Path(file).name in str(caught.value) or "image f" in message or "test_list" in file


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_another_separator_and_a_byte_order_mark_change_nothing(tmp_path: Path, separator: str) -> None:
    sets.aptos2019(tmp_path / "a")
    expected = [
        (e.name, e.split, e.categories) for e in listing(FolderData(kind="folder", root=tmp_path / "a")).entries
    ]
    data = changed(tmp_path / "b", sets.aptos2019, APTOS, lambda text: "\ufeff" + text.replace(",", separator))
    assert [(e.name, e.split, e.categories) for e in listing(data).entries] == expected


def test_a_label_file_in_another_encoding(tmp_path: Path) -> None:
    sets.aptos2019(tmp_path)
    (tmp_path / APTOS).write_bytes("id_code,diagnosis\nü,0\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.csv is not UTF-8 text; save it in UTF-8"):
        listing(FolderData(kind="folder", root=tmp_path))


def test_a_set_without_one_of_its_images(tmp_path: Path) -> None:
    sets.rsna(tmp_path)
    for path in (tmp_path / "stage_2_train_images").iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    with pytest.raises(DataError, match="has none of the images that its label files name; add the images"):
        listing(FolderData(kind="folder", root=tmp_path))
