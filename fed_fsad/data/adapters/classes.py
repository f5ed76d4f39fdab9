"""Sets whose classes are folders: Brain Tumor MRI, OCT2017, LAG, LC25000."""

import re
from pathlib import Path

from fed_fsad.data.adapters.layout import Layout, Tree, always, folders_in
from fed_fsad.data.entries import Entry, Split
from fed_fsad.data.tables import pseudonym
from fed_fsad.errors import DataError

OCT_NAME = re.compile(r"(?:NORMAL|CNV|DME|DRUSEN)-(\d+)-\d+")
"""CLASS-PATIENT-NUMBER, as OCT2017 names its files. The number is public: a hash groups, it need not hide."""
LUNG = {"lung_n": "normal", "lung_aca": "adenocarcinoma", "lung_scc": "squamous_cell_carcinoma"}


def oct_patient(path: Path) -> str | None:
    """The patient that a file name of OCT2017 tells, hashed."""
    found = OCT_NAME.fullmatch(path.stem)
    return pseudonym(b"OCT2017", found[1]) if found else None


def _brain_tumor(tree: Tree) -> list[Entry]:
    splits: dict[Split, Path] = {"train": tree.folder("Training"), "test": tree.folder("Testing")}
    return [
        tree.entry(path, split, [child.name if child.name == "no_tumor" else child.name.removesuffix("_tumor")])
        for split, folder in splits.items()
        for child in _classes(tree, folder)
        for path in tree.images(child)
    ]


def _oct2017(tree: Tree) -> list[Entry]:
    folders: list[tuple[Split, Path]] = [("train", tree.folder("train")), ("test", tree.folder("test"))]
    if (tree.root / "val").is_dir():
        folders.insert(1, ("train", tree.root / "val"))
    return [
        tree.entry(path, split, [child.name], patient=oct_patient(path))
        for split, folder in folders
        for child in _classes(tree, folder)
        for path in tree.images(child)
    ]


def _lag(tree: Tree) -> list[Entry]:
    folders = {"non_glaucoma": tree.folder("non_glaucoma/image"), "glaucoma": tree.folder("suspicious_glaucoma/image")}
    found = [tree.entry(path, "train", [name]) for name, folder in folders.items() for path in tree.images(folder)]
    return tree.divided(found)


def _lc25000(tree: Tree) -> list[Entry]:
    found = []
    for folder, name in LUNG.items():
        inside = tree.folder(folder, f"lung_image_sets/{folder}", f"lung_colon_image_set/lung_image_sets/{folder}")
        found += [tree.entry(path, "train", [name]) for path in tree.images(inside)]
    return tree.divided(found)


def _classes(tree: Tree, folder: Path) -> list[Path]:
    if not (found := folders_in(folder)):
        raise DataError(f"{folder} has no class folders, but layout {tree.layout.name!r} needs them; restore them")
    return found


LAYOUTS = (
    Layout(
        name="brain_tumor_mri",
        title="Brain Tumor MRI Dataset (Nickparvar)",
        source="Kaggle, masoudnickparvar/brain-tumor-mri-dataset",
        shape="{Training,Testing}/{glioma,meningioma,notumor,pituitary}",
        normal=("notumor", "no_tumor"),
        recognise=lambda root: (root / "Training").is_dir() and (root / "Testing").is_dir(),
        entries=_brain_tumor,
        task=always("brain_mri"),
    ),
    Layout(
        name="oct2017",
        title="OCT2017 (Kermany)",
        source="Mendeley Data rscbjbr9sj; Kaggle, paultimothymooney/kermany2018",
        shape="{train,test}/{NORMAL,CNV,DME,DRUSEN}",
        normal=("NORMAL",),
        recognise=lambda root: (root / "train/NORMAL").is_dir() and (root / "train/DRUSEN").is_dir(),
        entries=_oct2017,
        task=always("oct"),
    ),
    Layout(
        name="lag",
        title="LAG (glaucoma)",
        source="its authors, on request (Li et al., CVPR 2019)",
        shape="{non_glaucoma,suspicious_glaucoma}/image",
        normal=("non_glaucoma",),
        recognise=lambda root: (root / "non_glaucoma").is_dir() and (root / "suspicious_glaucoma").is_dir(),
        entries=_lag,
        task=always("fundus"),
    ),
    Layout(
        name="lc25000",
        title="LC25000, lung part",
        source="its authors' repository (Borkowski et al., arXiv 1912.12142); Kaggle",
        shape="lung_image_sets/{lung_n,lung_aca,lung_scc}",
        normal=("normal",),
        recognise=lambda root: any(
            (root / above / "lung_n").is_dir()
            for above in ("", "lung_image_sets", "lung_colon_image_set/lung_image_sets")
        ),
        entries=_lc25000,
        task=always("lung_histology"),
    ),
)
