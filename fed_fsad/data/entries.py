"""What a listing (folders or a manifest) says of one image before the file is opened."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


@dataclass(frozen=True)
class Entry:
    """One image of a data set on disk.

    name: the path relative to the root, with forward slashes. categories: sorted; empty means normal.
    patient: a keyed hash, or None when unknown. part: the one frame, slice or tile that is meant, e.g. "frame-003" or
    "axial-077"; None leaves the choice to the settings of `reading`. columns: what a manifest says in its column `site`
    and in those of the user's own, by (column, value), where they are filled.
    """

    name: str
    path: Path
    split: Split
    categories: tuple[str, ...]
    mask: Path | None = None
    patient: str | None = None
    part: str | None = None
    columns: tuple[tuple[str, str], ...] = ()


def categories_of(label: str, normal: Collection[str]) -> tuple[str, ...]:
    """The anomalies a class name stands for: none when it is one of the `normal` names, spelled exactly so."""
    return () if label in normal else (label,)
