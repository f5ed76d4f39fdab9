"""Fundus sets with label files: APTOS 2019, IDRiD, ODIR-5K, RFMiD."""

import re
from pathlib import Path

from fed_fsad.data.adapters.layout import Layout, Tree, always, has_columns
from fed_fsad.data.entries import Entry, Split
from fed_fsad.data.tables import Row, pseudonym, read_table

RESTORE = "restore it as published"
GRADES = {"0": "normal", **{str(grade): f"grade{grade}" for grade in range(1, 5)}}
"""Severity of diabetic retinopathy, 0 to 4."""
ODIR_CODES = {
    "N": "normal",
    "D": "diabetes",
    "G": "glaucoma",
    "C": "cataract",
    "A": "amd",
    "H": "hypertension",
    "M": "myopia",
    "O": "other",
}
ODIR_IMAGES = ("preprocessed_images", "ODIR-5K/ODIR-5K/Training Images", "ODIR-5K/Training Images", "Training Images")
IDRID_ROOTS = ("", "B. Disease Grading/")
RFMID_PARTS: tuple[tuple[str, str, str, Split], ...] = (
    ("Training", "Training", "a. Training Set", "train"),
    ("Validation", "Evaluation", "b. Validation Set", "train"),
    ("Testing", "Test", "c. Testing Set", "test"),
)
"""Name in the label file, in Kaggle's folders, in IEEE DataPort's folders, and what it serves as."""


def _aptos(tree: Tree) -> list[Entry]:
    table = read_table(tree.file("train.csv"), ("id_code", "diagnosis"), RESTORE)
    index = tree.index([tree.folder("train_images", "train_images/train_images")])
    labels: dict[str, str] = {}
    found = []
    for row in table.rows:
        _once(labels, row, row["id_code"], row.choice("diagnosis", GRADES))
        if (path := tree.look_up(index, row["id_code"])) is not None:
            found.append(tree.entry(path, "train", [labels[row["id_code"]]]))
    return tree.divided(found)


def _idrid(tree: Tree) -> list[Entry]:
    parts: tuple[tuple[Split, str, str], ...] = (("train", "a", "Training"), ("test", "b", "Testing"))
    found = []
    for split, letter, name in parts:
        labels = f"2. Groundtruths/{letter}. IDRiD_Disease Grading_{name} Labels.csv"
        table = read_table(tree.file(*_below(labels)), ("Image name", "Retinopathy grade"), RESTORE)
        index = tree.index([tree.folder(*_below(f"1. Original Images/{letter}. {name} Set"))])
        for row in table.rows:
            label = row.choice("Retinopathy grade", GRADES)
            if (path := tree.look_up(index, row["Image name"])) is not None:
                found.append(tree.entry(path, split, [label]))
    return found


def _below(path: str) -> list[str]:
    return [above + path for above in IDRID_ROOTS]


def _odir(tree: Tree) -> list[Entry]:
    table = read_table(tree.file("full_df.csv"), ("ID", "labels", "filename"), RESTORE)
    index = tree.index([tree.folder(*ODIR_IMAGES)])
    labels: dict[str, str] = {}
    found = []
    for row in table.rows:
        codes = re.findall(r"[A-Z]+", row["labels"])
        if not codes or any(code not in ODIR_CODES for code in codes):
            raise row.error(f"labels {row['labels']!r} is unknown; write letters of {', '.join(ODIR_CODES)}")
        _once(labels, row, row["filename"], row["labels"])
        if (path := tree.look_up(index, row["filename"])) is not None:
            patient = pseudonym(table.key, row["ID"])
            found.append(tree.entry(path, "train", [ODIR_CODES[code] for code in codes], patient=patient))
    return tree.divided(found)


def _rfmid(tree: Tree) -> list[Entry]:
    found = []
    for name, kaggle, ieee, split in RFMID_PARTS:
        above, csv = f"{kaggle}_Set", f"RFMiD_{name}_Labels.csv"
        letter = ieee[0]
        file = tree.file(f"{above}/{csv}", f"{above}/{above}/{csv}", f"2. Groundtruths/{letter}. {csv}")
        inner = "Test" if name == "Testing" else name
        folder = tree.folder(f"{above}/{inner}", f"{above}/{above}/{inner}", f"1. Original Images/{ieee}")
        index = tree.index([folder])
        table = read_table(file, ("ID", "Disease_Risk"), RESTORE)
        for row in table.rows:
            labels = _marked(row)
            if (path := tree.look_up(index, row["ID"])) is not None:
                found.append(tree.entry(path, split, labels))
    return found


def _marked(row: Row) -> list[str]:
    """The diseases a row marks with 1; "other" for an image at risk without a name, "normal" for one without both."""
    named = [name for name in row.cells if name and name not in ("ID", "Disease_Risk")]
    for name in ("Disease_Risk", *named):
        row.choice(name, {"0": "", "1": ""})
    return [name for name in named if row[name] == "1"] or (["other"] if row["Disease_Risk"] == "1" else ["normal"])


def _once(seen: dict[str, str], row: Row, name: str, label: str) -> None:
    """Note an image's label. Raises DataError for one that is listed before, under another label or not."""
    if name in seen:
        how = "again" if seen[name] == label else f"again with another label than {seen[name]!r}"
        raise row.error(f"{name} is listed {how}; remove one of the two lines")
    seen[name] = label


def _has_rfmid(root: Path) -> bool:
    csv = "RFMiD_Training_Labels.csv"
    above = "Training_Set"
    return any(
        (root / path).is_file() for path in (f"{above}/{csv}", f"{above}/{above}/{csv}", f"2. Groundtruths/a. {csv}")
    )


LAYOUTS = (
    Layout(
        name="aptos2019",
        title="APTOS 2019 Blindness Detection",
        source="Kaggle, competition aptos2019-blindness-detection",
        shape="train.csv (id_code, diagnosis) and train_images/",
        normal=("normal",),
        recognise=lambda root: has_columns(root / "train.csv", "id_code", "diagnosis"),
        entries=_aptos,
        task=always("retina"),
    ),
    Layout(
        name="idrid",
        title="IDRiD, part B",
        source="IEEE DataPort, Indian Diabetic Retinopathy Image Dataset",
        shape="1. Original Images/{a. Training Set,b. Testing Set} and 2. Groundtruths/",
        normal=("normal",),
        recognise=lambda root: any(
            (root / path).is_file() for path in _below("2. Groundtruths/a. IDRiD_Disease Grading_Training Labels.csv")
        ),
        entries=_idrid,
        task=always("retina"),
    ),
    Layout(
        name="odir5k",
        title="ODIR-5K",
        source="Kaggle, andrewmvd/ocular-disease-recognition-odir5k",
        shape="full_df.csv (ID, labels, filename) and preprocessed_images/",
        normal=("normal",),
        recognise=lambda root: has_columns(root / "full_df.csv", "ID", "labels", "filename"),
        entries=_odir,
        task=always("fundus"),
    ),
    Layout(
        name="rfmid",
        title="RFMiD",
        source="IEEE DataPort, Retinal Fundus Multi-disease Image Dataset; "
        "Kaggle, andrewmvd/retinal-disease-classification",
        shape="{Training_Set,Evaluation_Set,Test_Set}/ with RFMiD_*_Labels.csv and {Training,Validation,Test}/",
        normal=("normal",),
        recognise=_has_rfmid,
        entries=_rfmid,
        task=always("fundus"),
    ),
)
