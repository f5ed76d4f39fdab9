"""Signs as one list of distinct texts, with the membership of every sign in every category."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor

from fed_fsad.data.signs import SignBook, TaskSigns
from fed_fsad.errors import ConfigError, DataError
from fed_fsad.methods.sdmad.settings import ContextMode, Speech


@dataclass(frozen=True)
class SignTable:
    """The signs of one task, as tensors index them.

    names: M categories. signs: S signs as written, one per distinct text and context. rows: [S] int64, where each
    stands in the vocabulary. member: [M + 1, S] bool, row 0 = normal, row m = the m-th category; a shared sign is a
    member of several rows. contexts: [M + 1], whose learnable context stands before the signs of each row.
    """

    task: str
    modality: str
    names: tuple[str, ...]
    signs: tuple[str, ...]
    rows: Tensor
    member: Tensor
    contexts: tuple[str, ...]

    def labels(self, categories: Sequence[tuple[str, ...]]) -> Tensor:
        """[N, M] bool, which categories each image shows. Raises DataError for a category that has no signs here."""
        labels = torch.zeros(len(categories), len(self.names), dtype=torch.bool)
        for row, names in enumerate(categories):
            for name in names:
                if name not in self.names:
                    raise DataError(
                        f"category {name!r} of task {self.task!r} has no signs to train or score it with"
                        f"{_nearest(name, self.names)}; add it to the sign list or take it off the images"
                    )
                labels[row, self.names.index(name)] = True
        return labels

    def without(self, withheld: Collection[str]) -> "SignTable":
        """These signs less the withheld categories, and less the signs only they have."""
        stay = [0, *(i for i, name in enumerate(self.names, start=1) if name not in withheld)]
        member = self.member[stay]
        used = member.any(dim=0)
        signs = tuple(sign for sign, keep in zip(self.signs, used.tolist(), strict=True) if keep)
        names, contexts = tuple(self.names[i - 1] for i in stay[1:]), tuple(self.contexts[i] for i in stay)
        return SignTable(self.task, self.modality, names, signs, self.rows[used], member[:, used], contexts)


@dataclass(frozen=True)
class Vocabulary:
    """Every distinct text once per context, [S] overall, and the tasks that use them.

    contexts: [S], the context each text is read with; "" is the one that all share.
    """

    texts: tuple[str, ...]
    contexts: tuple[str, ...]
    tasks: Mapping[str, SignTable]

    @property
    def digest(self) -> str:
        """A SHA-256 over texts, contexts and who owns which, hexadecimal."""
        tables = [[t.task, t.names, t.rows.tolist(), t.member.tolist(), t.contexts] for t in self.tasks.values()]
        return hashlib.sha256(json.dumps([self.texts, self.contexts, tables]).encode()).hexdigest()

    def task(self, name: str) -> SignTable:
        """The signs of a task. Raises DataError when the sign lists do not know it."""
        if name not in self.tasks:
            raise DataError(f"task {name!r} has no sign list{_nearest(name, self.tasks)}; add one to `signs`")
        return self.tasks[name]

    def without(self, withheld: Collection[str]) -> "Vocabulary":
        """The same texts for all tasks less the withheld categories. Raises ConfigError for one that no task has."""
        known = sorted({name for task in self.tasks.values() for name in task.names})
        for name in withheld:
            if name not in known:
                raise ConfigError(f"withheld category {name!r} is in no sign list{_nearest(name, known)}; correct it")
        tasks = {name: task.without(withheld) for name, task in self.tasks.items()}
        return Vocabulary(self.texts, self.contexts, tasks)


def build_vocabulary(
    books: Iterable[SignBook],
    context: ContextMode = "shared",
    signs_as: Speech = "signs",
    withheld: Collection[str] = (),
) -> Vocabulary:
    """All tasks of all books; a text that several use with the same context is one row.

    context: who shares a context. A withheld category is read with its task's normal context, since nobody trains its
    own. signs_as: "names" puts one text of the class name in place of the signs. Raises ConfigError for a task that is
    listed twice.
    """
    rows: dict[tuple[str, str], int] = {}
    tasks: dict[str, SignTable] = {}
    for book in books:
        for task, entry in book.tasks.items():
            if task in tasks:
                raise ConfigError(f"two sign lists describe task {task!r}; name only one of them in `signs`")
            groups = _spoken(entry, signs_as)
            contexts = _contexts(task, entry, context, withheld)
            keyed = [[(sign, text, own) for sign, text in group] for group, own in zip(groups, contexts, strict=True)]
            columns = list(dict.fromkeys(column for group in keyed for column in group))
            index = torch.tensor([rows.setdefault((text, own), len(rows)) for _, text, own in columns])
            member = torch.tensor([[column in group for column in columns] for group in keyed])
            signs = tuple(sign for sign, _, _ in columns)
            tasks[task] = SignTable(task, entry.modality, tuple(entry.categories), signs, index, member, contexts)
    return Vocabulary(tuple(text for text, _ in rows), tuple(own for _, own in rows), tasks)


def name_texts(modality: str, names: Iterable[str]) -> list[str]:
    """What zero-shot CLIP would say: the normal text, then one per category, made of class names alone (ours)."""
    spelled = [name.replace("_", " ") for name in names]
    return [f"a normal {modality} image", *(f"a {modality} image with {name}" for name in spelled)]


def _spoken(entry: TaskSigns, signs_as: Speech) -> list[list[tuple[str, str]]]:
    """(sign, text) pairs of normal and of every category."""
    if signs_as == "names":
        labels = ["normal", *entry.categories]
        return [[pair] for pair in zip(labels, name_texts(entry.modality, entry.categories), strict=True)]
    groups = [entry.normal, *entry.categories.values()]
    return [[(sign, f"a {entry.modality} image showing {sign}") for sign in group] for group in groups]


def _contexts(task: str, entry: TaskSigns, mode: ContextMode, withheld: Collection[str]) -> tuple[str, ...]:
    """Whose context stands before the signs of normal and of every category."""
    if mode == "per_category":
        own = (f"{task}: {'normal' if name in withheld else name}" for name in entry.categories)
        return (f"{task}: normal", *own)
    return (entry.modality if mode == "per_modality" else "",) * (len(entry.categories) + 1)


def _nearest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f" (nearest: {close[0]!r})" if close else ""
