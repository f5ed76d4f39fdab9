"""What a layout is, and a data set's folder as its adapter walks it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from fed_fsad.data.entries import Entry, Split
from fed_fsad.data.readers import SUFFIXES, bare_name
from fed_fsad.data.readers.files import denied
from fed_fsad.data.settings import FolderData
from fed_fsad.data.split import split_entries
from fed_fsad.errors import DataError

TEST_SHARE = 0.3
"""Part of a set without a labelled test part that becomes test images; `fed-fsad data split` draws other ones."""


@dataclass(frozen=True)
class Layout:
    """How one public data set, or one family of them, lies on disk.

    name: the value of `layout`. title: its public name. source: where a user gets it. shape: what must lie under the
    root, in one line. normal: class names that mean no anomaly. recognise: whether a root looks like it. entries: the
    images of a root; raises DataError that names what is missing. task: what the set is called when nobody says.
    """

    name: str
    title: str
    source: str
    shape: str
    normal: tuple[str, ...]
    recognise: Callable[[Path], bool]
    entries: Callable[["Tree"], list[Entry]]
    task: Callable[[Path], str]


@dataclass
class Tree:
    """A data set's folder under a layout. absent: images that a label file names and the disk does not have."""

    data: FolderData
    layout: Layout
    absent: list[str] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The folder that the user named."""
        return self.data.root

    def file(self, *choices: str) -> Path:
        """The first of the paths that is a file. Raises DataError that names the first."""
        return self._first(choices, Path.is_file)

    def folder(self, *choices: str) -> Path:
        """The first of the paths that is a folder. Raises DataError that names the first."""
        return self._first(choices, Path.is_dir)

    def images(self, folder: Path) -> list[Path]:
        """The images right in a folder, by name. Raises DataError when there is none."""
        if not (found := files_in(folder)):
            raise DataError(f"{folder} holds no image, but layout {self.layout.name!r} needs some; restore them")
        return found

    def index(self, folders: Iterable[Path]) -> dict[str, Path]:
        """The images of several folders by their names without suffix; the first folder wins."""
        found: dict[str, Path] = {}
        for folder in folders:
            for path in self.images(folder):
                found.setdefault(bare_name(path.name), path)
        return found

    def look_up(self, index: dict[str, Path], name: str) -> Path | None:
        """The image that a label file calls `name`, with or without suffix; None is noted as absent."""
        path = index.get(name) or index.get(bare_name(name))
        if path is None:
            self.absent.append(name)
        return path

    def entry(
        self, path: Path, split: Split, labels: Iterable[str], mask: Path | None = None, patient: str | None = None
    ) -> Entry:
        """One image with its class names; those that mean normal are no categories."""
        categories = tuple(sorted(set(labels) - {*self.data.normal, *self.layout.normal}))
        return Entry(path.relative_to(self.root).as_posix(), path, split, categories, mask, patient)

    def divided(self, entries: list[Entry]) -> list[Entry]:
        """Entries of a set without a labelled test part, split by patient; always the same way."""
        return split_entries(entries, TEST_SHARE, seed=0)

    def _first(self, choices: tuple[str, ...], right: Callable[[Path], bool]) -> Path:
        for choice in choices:
            if right(self.root / choice):
                return self.root / choice
        raise DataError(
            f"{self.root} has no {choices[0]}, which layout {self.layout.name!r} needs ({self.layout.shape}); "
            "add it, or name another layout"
        )


def files_in(folder: Path) -> list[Path]:
    """The image files right in a folder, by name; hidden ones left out. Raises DataError for a folder that is none."""
    try:
        inside = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
    except PermissionError as error:
        raise denied(folder) from error
    except OSError as error:
        raise DataError(f"{folder} is no folder; restore it or name another layout") from error
    return sorted(path for path in inside if path.name.lower().endswith(SUFFIXES))


def folders_in(folder: Path) -> list[Path]:
    """The folders right in a folder, by name; hidden ones left out."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__MACOSX")))


def has_columns(path: Path, *columns: str) -> bool:
    """Whether a file's first line names all the columns."""
    try:
        with path.open("rb") as file:
            head = file.readline(1 << 14).decode("utf-8-sig", errors="replace").lower()
    except OSError:
        return False
    return all(column.lower() in head for column in columns)


def always(task: str) -> Callable[[Path], str]:
    """The `task` of a layout whose sets all show the same."""
    return lambda root: task


TASKS = {
    "brain": "brain_mri",
    "brats": "brain_mri",
    "liver": "liver_ct",
    "resc": "oct",
    "oct": "oct",
    "chest": "chest_xray",
    "rsna": "chest_xray",
    "cxr": "chest_xray",
    "his": "histology",
    "camelyon": "histology",
    "lag": "fundus",
    "aptos": "retina",
}
"""Part of a folder's name to task, for packagings that hold one of several sets."""


def by_folder_name(root: Path) -> str:
    """The task that the root's own name tells, or "images"."""
    name = root.resolve().name.lower()
    return next((task for part, task in TASKS.items() if part in name), "images")
