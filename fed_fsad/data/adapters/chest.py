"""Chest X-ray sets with label files: RSNA pneumonia, ChestX-ray14, VinDr-CXR."""

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from fed_fsad.data.adapters.layout import Layout, Tree, always, folders_in, has_columns
from fed_fsad.data.entries import Entry, Split
from fed_fsad.data.tables import Row, pseudonym, read_table, read_text
from fed_fsad.errors import DataError
from fed_fsad.names import suggestion

RESTORE = "restore it as published"
RSNA_CLASSES = {
    "Normal": "normal",
    "Lung Opacity": "lung opacity",
    "No Lung Opacity / Not Normal": "not normal, no opacity",
}
NIH_TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
NIH_LISTS: dict[Split, str] = {"train": "train_val_list.txt", "test": "test_list.txt"}
NIH_FINDINGS = (
    "No Finding",
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
VINDR_CLASSES = (
    "No finding",
    "Aortic enlargement",
    "Atelectasis",
    "Calcification",
    "Cardiomegaly",
    "Consolidation",
    "ILD",
    "Infiltration",
    "Lung Opacity",
    "Nodule/Mass",
    "Other lesion",
    "Pleural effusion",
    "Pleural thickening",
    "Pneumothorax",
    "Pulmonary fibrosis",
)
ANNOTATIONS = "annotations/image_labels_train.csv"


def _rsna(tree: Tree) -> list[Entry]:
    """An image has one line per box; all of its lines name one class."""
    table = read_table(tree.file("stage_2_detailed_class_info.csv"), ("patientId", "class"), RESTORE)
    index = tree.index([tree.folder("stage_2_train_images")])
    classes: dict[str, str] = {}
    for row in table.rows:
        label = row.choice("class", RSNA_CLASSES)
        if classes.setdefault(row["patientId"], label) != label:
            raise row.error(f"{row['patientId']} is listed as another class before; remove one of the two lines")
    found = []
    for name, label in classes.items():
        if (path := tree.look_up(index, name)) is not None:
            found.append(tree.entry(path, "train", [label], patient=pseudonym(table.key, name)))
    return tree.divided(found)


def _chestxray14(tree: Tree) -> list[Entry]:
    table = read_table(tree.file(*NIH_TABLES), ("Image Index", "Finding Labels", "Patient ID"), RESTORE)
    split_of = _nih_splits(tree)
    index = tree.index(_nih_folders(tree))
    found: dict[str, Entry] = {}
    for row in table.rows:
        name, labels = row["Image Index"], row["Finding Labels"].split("|")
        for label in labels:
            if label not in NIH_FINDINGS:
                raise row.error(f"finding {label!r} is unknown; {suggestion(label, NIH_FINDINGS)}")
        if name not in split_of:
            raise row.error(f"{name} is in neither {' nor '.join(NIH_LISTS.values())}; restore the lists as published")
        if name in found:
            raise row.error(f"{name} is listed again; remove one of the two lines")
        if (path := tree.look_up(index, name)) is not None:
            patient = pseudonym(table.key, row["Patient ID"])
            found[name] = tree.entry(path, split_of[name], labels, patient=patient)
    return list(found.values())


def _nih_splits(tree: Tree) -> dict[str, Split]:
    listed = {split: read_text(tree.file(file), RESTORE).split() for split, file in NIH_LISTS.items()}
    if twice := sorted(set(listed["train"]) & set(listed["test"])):
        raise DataError(f"{twice[0]} is in both {' and '.join(NIH_LISTS.values())}; restore the lists as published")
    return {name: split for split, names in listed.items() for name in names}


def _nih_folders(tree: Tree) -> list[Path]:
    """`images`, or Kaggle's images_001/images to images_012/images."""
    parts = [folder for folder in folders_in(tree.root) if folder.name.startswith("images_")]
    inner = [folder / "images" if (folder / "images").is_dir() else folder for folder in parts]
    return inner or [tree.folder("images")]


def _vindr(tree: Tree) -> list[Entry]:
    """A finding counts when any of the radiologists marked it; an image is normal when none marked any."""
    if not (tree.root / "annotations").is_dir():
        return tree.divided(_vindr_entries(tree, "train", _boxes(tree)))
    found = _vindr_entries(tree, "train", _one_hot(tree.file(ANNOTATIONS)))
    return found + _vindr_entries(tree, "test", _one_hot(tree.file(ANNOTATIONS.replace("train", "test"))))


def _vindr_entries(tree: Tree, split: Split, labels: dict[str, set[str]]) -> list[Entry]:
    index = tree.index([tree.folder(split)])
    found = []
    for name, own in labels.items():
        if (path := tree.look_up(index, name)) is not None:
            found.append(tree.entry(path, split, own))
    return found


def _boxes(tree: Tree) -> dict[str, set[str]]:
    table = read_table(tree.file("train.csv"), ("image_id", "class_name"), RESTORE)
    names = {name: name.replace("/", " or ") for name in VINDR_CLASSES}
    return _gathered((row, [row.choice("class_name", names)]) for row in table.rows)


def _one_hot(file: Path) -> dict[str, set[str]]:
    table = read_table(file, ("image_id", "No finding"), RESTORE)
    named = [name for name in table.columns if name not in ("image_id", "rad_id", "")]
    marks = {"0": "", "0.0": "", "1": "1", "1.0": "1"}
    return _gathered(
        (row, [name.replace("/", " or ") for name in named if row.choice(name, marks)]) for row in table.rows
    )


def _gathered(rows: Iterable[tuple[Row, list[str]]]) -> dict[str, set[str]]:
    found: defaultdict[str, set[str]] = defaultdict(set)
    for row, labels in rows:
        found[row["image_id"]].update(labels)
    if empty := next((name for name, labels in found.items() if not labels), None):
        raise DataError(f"image {empty} has no label at all; restore the label files as published")
    return found


LAYOUTS = (
    Layout(
        name="rsna",
        title="RSNA Pneumonia Detection",
        source="Kaggle, competition rsna-pneumonia-detection-challenge",
        shape="stage_2_train_images/*.dcm and stage_2_detailed_class_info.csv (patientId, class)",
        normal=("normal",),
        recognise=lambda root: (
            (root / "stage_2_train_images").is_dir() or (root / "stage_2_detailed_class_info.csv").is_file()
        ),
        entries=_rsna,
        task=always("chest_xray"),
    ),
    Layout(
        name="chestxray14",
        title="NIH ChestX-ray14",
        source="NIH Clinical Center; Kaggle, nih-chest-xrays/data",
        shape="Data_Entry_2017.csv, train_val_list.txt, test_list.txt and images/ or images_001/images/ …",
        normal=("No Finding",),
        recognise=lambda root: any((root / name).is_file() for name in NIH_TABLES),
        entries=_chestxray14,
        task=always("chest_xray"),
    ),
    Layout(
        name="vindr_cxr",
        title="VinDr-CXR",
        source="PhysioNet, vindr-cxr; Kaggle, competition vinbigdata-chest-xray-abnormalities-detection",
        shape="train/ and train.csv (image_id, class_name), or {train,test}/ and annotations/image_labels_*.csv",
        normal=("No finding",),
        recognise=lambda root: (
            has_columns(root / "train.csv", "image_id", "class_name") or (root / ANNOTATIONS).is_file()
        ),
        entries=_vindr,
        task=always("chest_xray"),
    ),
)
