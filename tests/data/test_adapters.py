"""Public data sets in exactly their public shape: recognised, listed, split; and what is missing is named."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from fed_fsad.data.adapters import LAYOUTS, Listing, layout_of, listing, normal_names
from fed_fsad.data.scan import scan
from fed_fsad.data.settings import FolderData, LayoutName
from fed_fsad.errors import DataError
from tests.conftest import write_image, write_set

Classes = Mapping[str, int]


def images(root: Path, *names: str, seed: int = 0) -> None:
    for number, name in enumerate(names):
        write_image(root / name, seed + number)


def text(root: Path, name: str, *lines: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def brain_tumor_mri(root: Path) -> None:
    """Names of the current version, and one folder as an older version of the set calls it."""
    counts = {f"{split}/{name}": 3 for split in ("Training", "Testing") for name in ("glioma", "notumor")}
    write_set(root, {**counts, "Training/meningioma_tumor": 1})


def oct2017(root: Path) -> None:
    for number, (split, name) in enumerate(
        [("train", "NORMAL-1-1"), ("train", "NORMAL-1-2"), ("train", "DRUSEN-7-1"), ("val", "CNV-5-1"),
         ("test", "NORMAL-8-1"), ("test", "DME-9-1")]
    ):  # fmt: skip
        write_image(root / split / name.split("-")[0] / f"{name}.png", number)


def lag(root: Path) -> None:
    write_set(root, {"non_glaucoma/image": 10, "suspicious_glaucoma/image": 10, "suspicious_glaucoma/attention_map": 2})


def lc25000(root: Path) -> None:
    write_set(root, {f"lung_colon_image_set/lung_image_sets/{name}": 10 for name in ("lung_n", "lung_aca", "lung_scc")})


def aptos2019(root: Path) -> None:
    images(root, *(f"train_images/{i:012x}.png" for i in range(20)))
    text(root, "train.csv", "id_code,diagnosis", *(f"{i:012x},{i % 5 if i >= 10 else 0}" for i in range(20)))


def idrid(root: Path) -> None:
    for letter, name, count in (("a", "Training", 3), ("b", "Testing", 2)):
        labels = [f"IDRiD_{i:03},{2 * (i % 2)},0,,," for i in range(1, count + 1)]
        head = "Image name,Retinopathy grade,Risk of macular edema ,,,"
        text(root, f"2. Groundtruths/{letter}. IDRiD_Disease Grading_{name} Labels.csv", head, *labels)
        files = [f"1. Original Images/{letter}. {name} Set/IDRiD_{i:03}.png" for i in range(1, count + 1)]
        images(root, *files, seed=ord(letter) * 100)


def odir5k(root: Path) -> None:
    lines = ["ID,Patient Age,Left-Fundus,Right-Fundus,N,D,labels,target,filename"]
    for patient in range(12):
        for side, code in (("left", "N"), ("right", "D" if patient % 2 else "N")):
            name = f"{patient}_{side}.jpg"
            lines.append(f"{patient},60,x,y,1,0,['{code}'],\"[1, 0]\",{name}")
            write_image(root / "preprocessed_images" / name, 2 * patient + (side == "left"))
    text(root, "full_df.csv", *lines)


def rfmid(root: Path) -> None:
    parts = {"Training": "Training_Set", "Validation": "Evaluation_Set", "Testing": "Test_Set"}
    for seed, (name, above) in enumerate(parts.items()):
        inner = "Test" if name == "Testing" else name
        images(root, *(f"{above}/{above}/{inner}/{i}.png" for i in range(1, 5)), seed=100 * seed)
        head = "ID,Disease_Risk,DR,MH"
        text(root, f"{above}/{above}/RFMiD_{name}_Labels.csv", head, "1,0,0,0", "2,1,1,1", "3,1,0,0", "4,1,1,0")


def rsna(root: Path) -> None:
    """The real files are DICOM; a reader goes by the content."""
    kinds = ["Normal", "Lung Opacity", "No Lung Opacity / Not Normal"]
    lines = [f"p{i},{kinds[i % 3]}" for i in range(12)]
    text(root, "stage_2_detailed_class_info.csv", "patientId,class", *lines, "p1,Lung Opacity", "gone,Normal")
    images(root, *(f"stage_2_train_images/p{i}.png" for i in range(12)))


def chestxray14(root: Path) -> None:
    """The header of the public file is broken at the commas in its brackets, and so it is here."""
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,OriginalImage[Width,Height],"
    rows = {
        "00000001_000.png": "Cardiomegaly|Emphysema,0,1",
        "00000001_001.png": "No Finding,1,1",
        "00000002_000.png": "No Finding,0,2",
        "00000003_000.png": "Pneumonia,0,3",
    }
    text(root, "Data_Entry_2017.csv", head, *(f"{name},{rest},10,10," for name, rest in rows.items()))
    text(root, "train_val_list.txt", "00000001_000.png", "00000001_001.png")
    text(root, "test_list.txt", "00000002_000.png", "00000003_000.png")
    for seed, name in enumerate(rows):
        write_image(root / f"images_{1 + seed % 2:03}" / "images" / name, seed)


def vindr_cxr(root: Path) -> None:
    """The packaging of PhysioNet: one line per radiologist in train, the consensus in test."""
    head = "image_id,rad_id,Nodule/Mass,ILD,No finding"
    train = ["a,R1,1,0,0", "a,R2,0,1,0", "b,R1,0,0,1", "b,R2,0,0,1", "c,R1,0,0,1", "c,R2,1,0,0"]
    text(root, "annotations/image_labels_train.csv", head, *train)
    text(root, "annotations/image_labels_test.csv", "image_id,Nodule/Mass,ILD,No finding", "d,0,0,1", "e,0,1,0")
    images(root, *(f"train/{name}.png" for name in "abc"), *(f"test/{name}.png" for name in "de"))


def vindr_kaggle(root: Path) -> None:
    lines = [f"i{i},{'No finding' if i % 2 else 'Nodule/Mass'},14,R{r},,,," for i in range(10) for r in range(3)]
    text(root, "train.csv", "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max", *lines)
    images(root, *(f"train/i{i}.png" for i in range(10)))


def medianomaly(root: Path) -> None:
    names = [f"{i}.png" for i in range(6)]
    images(root, *(f"images/{name}" for name in names))
    listed = {"train": {"0": names[:3], "unlabeled": {"0": [], "1": []}}, "test": {"0": names[3:5], "1": names[5:]}}
    text(root, "data.json", json.dumps(listed))


def mvfa(root: Path) -> None:
    """MVFA-AD's own files: valid and test, img and anomaly_mask, BraTS patients in the names."""
    for seed, (split, patient) in enumerate((("valid", "00025"), ("test", "00002"))):
        for number, name in enumerate((f"{patient}_60.png", f"{patient}_61.png")):
            write_image(root / split / "good" / "img" / name, 100 * seed + number)
            write_image(root / split / "Ungood" / "img" / name, 100 * seed + number + 10)
            write_image(root / split / "Ungood" / "anomaly_mask" / name, 100 * seed + number + 20)


def bmad(root: Path) -> None:
    """BMAD's own files with pixel labels."""
    mvfa(root)
    for split in ("valid", "test"):
        (root / split / "Ungood" / "anomaly_mask").rename(root / split / "Ungood" / "label")
    images(root, "train/good/img/00003_60.png", "train/good/img/00003_61.png", seed=500)


def camelyon(root: Path) -> None:
    """BMAD's and MedIAnomaly's Camelyon16: image labels only."""
    write_set(root, {"train/good": 3, "valid/good": 1, "valid/Ungood": 2, "test/good": 2, "test/Ungood": 4})


def mvtec(root: Path) -> None:
    write_set(root, {"train/good": 3, "test/good": 2, "test/tear": 2, "test/spot": 1})
    images(root, *(f"ground_truth/{name}_mask.png" for name in ("tear/000", "tear/001", "spot/000")), seed=900)


def d24fad(root: Path) -> None:
    write_set(root, {"train/good": 4, "test/good": 2, "test/bad": 3})


@dataclass(frozen=True)
class Case:
    """A set's tree, its layout, its task, images per class of both splits together or apart, masks, patients."""

    build: Callable[[Path], None]
    layout: str
    task: str
    train: Classes
    test: Classes
    masks: int = 0
    patients: int = 0


CASES = [
    Case(brain_tumor_mri, "brain_tumor_mri", "brain_mri", {"normal": 3, "glioma": 3, "meningioma": 1},
         {"normal": 3, "glioma": 3}),
    Case(oct2017, "oct2017", "oct", {"normal": 2, "DRUSEN": 1, "CNV": 1}, {"normal": 1, "DME": 1}, patients=5),
    Case(lag, "lag", "fundus", {"normal": 7, "glaucoma": 7}, {"normal": 3, "glaucoma": 3}),
    Case(lc25000, "lc25000", "lung_histology", {"normal": 7, "adenocarcinoma": 7, "squamous_cell_carcinoma": 7},
         {"normal": 3, "adenocarcinoma": 3, "squamous_cell_carcinoma": 3}),
    Case(aptos2019, "aptos2019", "retina", {"normal": 8, "grade1": 1, "grade2": 1, "grade3": 1, "grade4": 1},
         {"normal": 4, "grade1": 1, "grade2": 1, "grade3": 1, "grade4": 1}),
    Case(idrid, "idrid", "retina", {"normal": 1, "grade2": 2}, {"normal": 1, "grade2": 1}),
    Case(odir5k, "odir5k", "fundus", {"normal": 12, "diabetes": 4}, {"normal": 6, "diabetes": 2}, patients=12),
    Case(rfmid, "rfmid", "fundus", {"normal": 2, "DR": 4, "MH": 2, "other": 2},
         {"normal": 1, "DR": 2, "MH": 1, "other": 1}),
    Case(rsna, "rsna", "chest_xray", {"normal": 3, "lung opacity": 3, "not normal, no opacity": 3},
         {"normal": 1, "lung opacity": 1, "not normal, no opacity": 1}, patients=12),
    Case(chestxray14, "chestxray14", "chest_xray", {"normal": 1, "Cardiomegaly": 1, "Emphysema": 1},
         {"normal": 1, "Pneumonia": 1}, patients=3),
    Case(vindr_cxr, "vindr_cxr", "chest_xray", {"normal": 1, "Nodule or Mass": 2, "ILD": 1}, {"normal": 1, "ILD": 1}),
    Case(vindr_kaggle, "vindr_cxr", "chest_xray", {"normal": 3, "Nodule or Mass": 4},
         {"normal": 2, "Nodule or Mass": 1}),
    Case(medianomaly, "medianomaly", "chest_xray", {"normal": 3}, {"normal": 2, "abnormal": 1}),
    Case(mvfa, "bmad", "brain_mri", {"normal": 2, "Ungood": 2}, {"normal": 2, "Ungood": 2}, masks=4, patients=2),
    Case(bmad, "bmad", "brain_mri", {"normal": 4, "Ungood": 2}, {"normal": 2, "Ungood": 2}, masks=4, patients=3),
    Case(camelyon, "bmad", "histology", {"normal": 4, "Ungood": 2}, {"normal": 2, "Ungood": 4}),
    Case(mvtec, "mvtec", "images", {"normal": 3}, {"normal": 2, "tear": 2, "spot": 1}, masks=3),
    Case(d24fad, "mvtec", "histology", {"normal": 4}, {"normal": 2, "bad": 3}),
]  # fmt: skip
FOLDER: dict[Callable[[Path], None], str] = {
    medianomaly: "RSNA", mvfa: "Brain_AD", bmad: "Brain", camelyon: "Camelyon16", d24fad: "HIS",
}  # fmt: skip
case_of = pytest.mark.parametrize("case", CASES, ids=lambda case: case.build.__name__)


def built(case: Case, tmp_path: Path) -> FolderData:
    root = tmp_path / FOLDER.get(case.build, "some set")
    case.build(root)
    return FolderData(kind="folder", root=root)


def counted(found: Listing, split: str) -> Counter[str]:
    return Counter(name for e in found.entries if e.split == split for name in e.categories or ("normal",))


@case_of
def test_a_public_set_is_recognised_and_listed_from_its_path_alone(case: Case, tmp_path: Path) -> None:
    data = built(case, tmp_path)
    found = listing(data)
    assert (found.layout.name, found.task) == (case.layout, case.task)
    assert counted(found, "train") == case.train
    assert counted(found, "test") == case.test
    assert sum(entry.mask is not None for entry in found.entries) == case.masks
    assert len({entry.patient for entry in found.entries} - {None}) == case.patients
    assert all(entry.path == data.root / entry.name and entry.path.is_file() for entry in found.entries)
    named = FolderData(kind="folder", root=data.root, layout=case.layout)
    assert listing(named) == found
    assert found.found.startswith(f"{LAYOUTS[case.layout].title} ({case.layout}): train ")


@case_of
def test_a_run_takes_what_was_listed(case: Case, tmp_path: Path) -> None:
    data = built(case, tmp_path)
    found = scan(data)
    assert found.skipped == ()
    for split, samples in (("train", found.train), ("test", found.test)):
        names = {entry.name for entry in listing(data).entries if entry.split == split}
        assert {sample.source.name for sample in samples} == names
    assert {sample.task for sample in found.train} == {case.task}


@case_of
def test_patients_are_hashed_and_never_parted(case: Case, tmp_path: Path) -> None:
    splits: dict[str, set[str]] = {}
    for entry in listing(built(case, tmp_path)).entries:
        if entry.patient is not None:
            splits.setdefault(entry.patient, set()).add(entry.split)
            assert len(entry.patient) == 16
            assert int(entry.patient, 16) >= 0
    assert all(len(own) == 1 for own in splits.values())


def test_the_found_sentence_says_everything(tmp_path: Path) -> None:
    rsna(tmp_path)
    assert listing(FolderData(kind="folder", root=tmp_path)).found == (
        "RSNA Pneumonia Detection (rsna): train 9 images (3 normal, 3 lung opacity, 3 not normal, no opacity); "
        "test 3 images (1 normal, 1 lung opacity, 1 not normal, no opacity); 12 patients known; no masks; "
        "1 listed images are not on this disk, e.g. gone"
    )


WRONG = [
    (
        aptos2019,
        "train_images",
        r"has no train_images, which layout 'aptos2019' needs \(train\.csv .*; add it, or name",
    ),
    (brain_tumor_mri, "Testing", "has no Testing, which layout 'brain_tumor_mri' needs"),
    (oct2017, "test", "has no test, which layout 'oct2017' needs"),
    (lag, "suspicious_glaucoma/image", "has no suspicious_glaucoma/image, which layout 'lag' needs"),
    (lc25000, "lung_colon_image_set/lung_image_sets/lung_scc", "has no lung_scc, which layout 'lc25000' needs"),
    (idrid, "2. Groundtruths/b. IDRiD_Disease Grading_Testing Labels.csv", "has no 2. Groundtruths/b. IDRiD"),
    (odir5k, "preprocessed_images", "has no preprocessed_images, which layout 'odir5k' needs"),
    (rfmid, "Test_Set", "has no Test_Set/RFMiD_Testing_Labels.csv, which layout 'rfmid' needs"),
    (rsna, "stage_2_train_images", "has no stage_2_train_images, which layout 'rsna' needs"),
    (chestxray14, "test_list.txt", "has no test_list.txt, which layout 'chestxray14' needs"),
    (vindr_cxr, "test", "has no test, which layout 'vindr_cxr' needs"),
    (medianomaly, "data.json", "has no data.json, which layout 'medianomaly' needs"),
    (mvfa, "test/Ungood", "has no test/Ungood, which layout 'bmad' needs"),
    (mvfa, "valid", "has no valid/good, which layout 'bmad' needs"),
    (mvfa, "test/Ungood/anomaly_mask/00002_60.png", "a mask for other images but none for 00002_60.png; add it"),
    (mvtec, "train/good", "has no train/good, which layout 'mvtec' needs"),
    (mvtec, "ground_truth/tear/001_mask.png", r"has no ground_truth/tear/001_mask\.png, but masks of other images"),
]


@pytest.mark.parametrize(("build", "missing", "message"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_missing_is_named(tmp_path: Path, build: Callable[[Path], None], missing: str, message: str) -> None:
    root = tmp_path / "set"
    build(root)
    (root / missing).rename(tmp_path / "away")
    (name,) = {case.layout for case in CASES if case.build is build}
    with pytest.raises(DataError, match=message):
        listing(FolderData(kind="folder", root=root, layout=name))


def test_an_empty_folder_and_a_folder_that_is_none(tmp_path: Path) -> None:
    mvtec(tmp_path)
    (tmp_path / "test/none").mkdir()
    with pytest.raises(DataError, match=r"test/none holds no image, but layout 'mvtec' needs some; restore them"):
        listing(FolderData(kind="folder", root=tmp_path))
    with pytest.raises(DataError, match=r"gone is no folder; correct data\.root"):
        listing(FolderData(kind="folder", root=tmp_path / "gone"))


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(DataError, match="may not be read: permission denied"):
        layout_of(FolderData(kind="folder", root=tmp_path))


def test_every_name_of_the_settings_has_a_layout_and_a_case() -> None:
    assert {"auto", *LAYOUTS} == set(get_args(LayoutName))
    assert {case.layout for case in CASES} | {"folders", "manifest"} == set(LAYOUTS)
    assert all(layout.source and layout.shape for layout in LAYOUTS.values())


def test_own_folders_stay_own_folders(tmp_path: Path) -> None:
    """A tree with train/good beside other classes, or with masks/, is read as before there were adapters."""
    write_set(tmp_path / "a", {"train/good": 2, "train/bad": 1, "test/good": 1})
    write_set(tmp_path / "b", {"train/good": 2, "test/good": 1, "test/Ungood": 1, "masks/test/Ungood": 1})
    write_set(tmp_path / "c", {"train/NORMAL": 2, "train/PNEUMONIA": 2, "test/NORMAL": 1})
    for name in "abc":
        assert layout_of(FolderData(kind="folder", root=tmp_path / name)).name == "folders"
    text(tmp_path / "a", "manifest.csv", "path,split,label", "train/good/000.png,train,normal")
    assert layout_of(FolderData(kind="folder", root=tmp_path / "a")).name == "folders"
    assert layout_of(FolderData(kind="folder", root=tmp_path / "a", manifest=Path("manifest.csv"))).name == "manifest"
    text(tmp_path / "d", "manifest.csv", "path,split,label", "x.png,train,normal")
    assert listing(FolderData(kind="folder", root=tmp_path / "d")).layout.name == "manifest"


def test_more_classes_may_be_called_normal(tmp_path: Path) -> None:
    aptos2019(tmp_path)
    data = FolderData(kind="folder", root=tmp_path, normal=("grade1",))
    assert normal_names(data) == ("grade1", "normal")
    assert {name for e in listing(data).entries for name in e.categories} == {"grade2", "grade3", "grade4"}


def test_the_table_of_the_docs_is_the_registry() -> None:
    page = (Path(__file__).parents[2] / "docs" / "own-data.md").read_text(encoding="utf-8")
    for layout in LAYOUTS.values():
        row = f"| `{layout.name}` | {layout.title}: {layout.source} | `{layout.shape}` |"
        assert row in page, f"put this row into docs/own-data.md: {row}"
