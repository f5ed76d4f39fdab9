"""Sets repackaged for anomaly detection: MVTec-style folders, BMAD and MVFA, MedIAnomaly."""

import json
import re
from pathlib import Path
from typing import Any

from fed_fsad.data.adapters.classes import oct_patient
from fed_fsad.data.adapters.layout import Layout, Tree, by_folder_name, files_in, folders_in
from fed_fsad.data.entries import Entry, Split
from fed_fsad.data.tables import pseudonym, read_text
from fed_fsad.errors import DataError

BRATS_NAME = re.compile(r"(\d{5})_\d+")
"""PATIENT_SLICE, as the BraTS2021 part of BMAD names its files."""
BMAD_SPLITS: tuple[tuple[str, Split], ...] = (("train", "train"), ("valid", "train"), ("test", "test"))
JSON_CLASSES = {"0": "normal", "1": "abnormal"}


def _mvtec(tree: Tree) -> list[Entry]:
    truth = tree.root / "ground_truth"
    found = [tree.entry(path, "train", ["good"]) for path in tree.images(tree.folder("train/good"))]
    for folder in folders_in(tree.folder("test")):
        masks = {path.stem: path for path in files_in(truth / folder.name)} if (truth / folder.name).is_dir() else {}
        for path in tree.images(folder):
            mask = masks.get(f"{path.stem}_mask") or masks.get(path.stem)
            if mask is None and masks:
                wanted = f"ground_truth/{folder.name}/{path.stem}_mask.png"
                raise DataError(f"{tree.root} has no {wanted}, but masks of other images there; add the missing one")
            found.append(tree.entry(path, "test", [folder.name], mask))
    return found


def _looks_like_mvtec(root: Path) -> bool:
    if not (root / "train/good").is_dir() or not (root / "test").is_dir():
        return False
    return (root / "ground_truth").is_dir() or [folder.name for folder in folders_in(root / "train")] == ["good"]


def _bmad(tree: Tree) -> list[Entry]:
    """train holds good images only, or is not there (MVFA); valid joins it; masks are called anomaly_mask or label."""
    tree.folder("test/good")
    tree.folder("test/Ungood")
    found = []
    for folder, split in BMAD_SPLITS:
        for name in ("good", "Ungood"):
            if (tree.root / folder / name).is_dir():
                found += _bmad_class(tree, tree.root / folder / name, split)
    if not any(entry.split == "train" for entry in found):
        tree.folder("valid/good")
    return found


def _bmad_class(tree: Tree, folder: Path, split: Split) -> list[Entry]:
    inner = folder / "img" if (folder / "img").is_dir() else folder
    masks: dict[str, Path] = {}
    for name in ("anomaly_mask", "label"):
        if folder.name == "Ungood" and (folder / name).is_dir():
            masks = {path.stem: path for path in files_in(folder / name)}
    found = []
    for path in tree.images(inner):
        if masks and path.stem not in masks:
            raise DataError(f"{folder} has a mask for other images but none for {path.name}; add it")
        found.append(tree.entry(path, split, [folder.name], masks.get(path.stem), _bmad_patient(path)))
    return found


def _bmad_patient(path: Path) -> str | None:
    found = BRATS_NAME.fullmatch(path.stem)
    return pseudonym(b"BraTS2021", found[1]) if found else oct_patient(path)


def _medianomaly(tree: Tree) -> list[Entry]:
    file = tree.file("data.json")
    try:
        listed: Any = json.loads(read_text(file, "restore it as published"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is no readable JSON ({error}); restore it as published") from error
    index = tree.index([tree.folder("images")])
    parts: tuple[tuple[Split, str], ...] = (("train", "0"), ("train", "1"), ("test", "0"), ("test", "1"))
    found = []
    for split, label in parts:
        for name in _names(file, listed, split, label):
            if (path := tree.look_up(index, name)) is not None:
                found.append(tree.entry(path, split, [JSON_CLASSES[label]]))
    return found


def _names(file: Path, listed: Any, split: Split, label: str) -> list[str]:
    part = listed.get(split) if isinstance(listed, dict) else None
    names = part.get(label, [] if (split, label) == ("train", "1") else None) if isinstance(part, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file} has no list of file names under {split} > {label}; restore it as published")
    return names


LAYOUTS = (
    Layout(
        name="medianomaly",
        title="MedIAnomaly packaging",
        source="github.com/caiyu6666/MedIAnomaly: RSNA, VinCXR, BrainTumor, LAG",
        shape="images/ and data.json: {train,test} > {0,1} > file names",
        normal=("normal",),
        recognise=lambda root: (root / "data.json").is_file() and (root / "images").is_dir(),
        entries=_medianomaly,
        task=by_folder_name,
    ),
    Layout(
        name="bmad",
        title="BMAD or MVFA packaging",
        source="github.com/DorisBao/BMAD; github.com/MediaBrain-SJTU/MVFA-AD: brain, liver, RESC, OCT2017, RSNA, "
        "Camelyon16",
        shape="{train,valid,test}/{good,Ungood}, each with images, or with img and anomaly_mask or label",
        normal=("good",),
        recognise=lambda root: (root / "test/good").is_dir() and (root / "test/Ungood").is_dir(),
        entries=_bmad,
        task=by_folder_name,
    ),
    Layout(
        name="mvtec",
        title="MVTec-style folders",
        source="one category of MVTec AD; also the layout of D²4FAD's own five sets (github.com/ttttqz/D24FAD)",
        shape="train/good, test/DEFECT, ground_truth/DEFECT/*_mask.png if there are masks",
        normal=("good",),
        recognise=_looks_like_mvtec,
        entries=_mvtec,
        task=by_folder_name,
    ),
)
