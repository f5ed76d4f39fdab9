"""Public data sets as they are downloaded: each layout recognised by its folders and label files, found by name."""

from collections import Counter
from dataclasses import dataclass

from fed_fsad.data.adapters import benchmarks, chest, classes, fundus
from fed_fsad.data.adapters.layout import Layout, Tree
from fed_fsad.data.entries import SPLITS, Entry
from fed_fsad.data.folder import list_folder
from fed_fsad.data.manifest import DEFAULT, list_manifest
from fed_fsad.data.readers.files import denied
from fed_fsad.data.settings import FolderData
from fed_fsad.errors import DataError

MOST_CLASSES = 8
"""Classes of a split that `Listing.found` names; the others are counted."""

FOLDERS = Layout(
    name="folders",
    title="Class folders",
    source="your own images",
    shape="{train,test}/CLASS, and masks/{train,test}/CLASS if there are masks",
    normal=(),
    recognise=lambda root: (root / "train").is_dir() or (root / "test").is_dir(),
    entries=lambda tree: list_folder(tree.data),
    task=lambda root: "images",
)
MANIFEST = Layout(
    name="manifest",
    title="Manifest",
    source="your own images, or fed-fsad data split",
    shape="a CSV table: path, split, label; categories, patient, mask, part, site if wanted",
    normal=(),
    recognise=lambda root: (root / DEFAULT).is_file() and not FOLDERS.recognise(root),
    entries=lambda tree: list_manifest(tree.data),
    task=lambda root: "images",
)
PUBLIC = (*classes.LAYOUTS, *fundus.LAYOUTS, *chest.LAYOUTS, *benchmarks.LAYOUTS)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (*PUBLIC, MANIFEST, FOLDERS)}
"""Every layout by its name, in the order in which they are tried."""


@dataclass(frozen=True)
class Listing:
    """A data set before any file is opened. absent: images that a label file names and the disk does not have."""

    layout: Layout
    task: str
    entries: tuple[Entry, ...]
    absent: tuple[str, ...]

    @property
    def found(self) -> str:
        """One sentence: layout, images per split and class, masks, patients."""
        parts = [f"{split} {_counted([e for e in self.entries if e.split == split])}" for split in SPLITS]
        patients = {entry.patient for entry in self.entries} - {None}
        masks = sum(entry.mask is not None for entry in self.entries)
        rest = [f"{len(patients) or 'no'} patients known", f"{masks or 'no'} masks"]
        if self.absent:
            rest.append(f"{len(self.absent)} listed images are not on this disk, e.g. {self.absent[0]}")
        return f"{self.layout.title} ({self.layout.name}): {'; '.join([*parts, *rest])}"


def listing(data: FolderData) -> Listing:
    """What lies under `data.root`, by the layout it names or looks like.

    Raises DataError that names the missing file or folder, or the wrong line of a label file.
    """
    layout = layout_of(data)
    tree = Tree(data, layout)
    entries = layout.entries(tree)
    if not entries:
        raise DataError(f"{data.root} has none of the images that its label files name; add the images")
    return Listing(layout, task_of(data), tuple(entries), tuple(tree.absent))


def layout_of(data: FolderData) -> Layout:
    """The layout that the settings name; otherwise the first that recognises the root, or class folders.

    Raises DataError for a root that may not be read.
    """
    if data.layout != "auto":
        return LAYOUTS[data.layout]
    if data.manifest is not None:
        return MANIFEST
    try:
        if (data.root / "masks").is_dir() and FOLDERS.recognise(data.root):
            return FOLDERS
        return next((layout for layout in LAYOUTS.values() if layout.recognise(data.root)), FOLDERS)
    except PermissionError as error:
        raise denied(data.root) from error


def task_of(data: FolderData) -> str:
    """What the images show: as the settings say, or as the layout knows."""
    return data.task or layout_of(data).task(data.root)


def normal_names(data: FolderData) -> tuple[str, ...]:
    """The class names that mean: no anomaly. Those of the settings, then those of the layout."""
    return tuple(dict.fromkeys((*data.normal, *layout_of(data).normal)))


def _counted(entries: list[Entry]) -> str:
    """ "12 images (8 normal, 4 glioma)"; an image of two classes counts for both."""
    classes = Counter(name for entry in entries for name in entry.categories or ("normal",))
    ranked = sorted(classes.items(), key=lambda item: (item[0] != "normal", -item[1], item[0]))
    named = [f"{count} {name}" for name, count in ranked[:MOST_CLASSES]]
    if len(ranked) > MOST_CLASSES:
        named.append(f"{len(ranked) - MOST_CLASSES} more classes")
    return f"{len(entries)} images ({', '.join(named)})" if entries else "no image"


__all__ = ["LAYOUTS", "Layout", "Listing", "Tree", "layout_of", "listing", "normal_names", "task_of"]
