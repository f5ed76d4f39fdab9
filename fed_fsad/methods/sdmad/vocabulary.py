"""Signs as one list of distinct texts, with the membership of every sign in every category."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor

from fed_fsad.data.signs import SignBook
from fed_fsad.errors import ConfigError, DataError


@dataclass(frozen=True)
class SignTable:
    """The signs of one task, as tensors index them.

    names: M categories. signs: S distinct signs as written. rows: [S] int64, where each stands in the vocabulary.
    member: [M + 1, S] bool, row 0 = normal, row m = the m-th category; a shared sign is a member of several rows.
    """

    task: str
    modality: str
    names: tuple[str, ...]
    signs: tuple[str, ...]
    rows: Tensor
    member: Tensor

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
        stay = [i for i, name in enumerate(self.names) if name not in withheld]
        member = self.member[[0, *(i + 1 for i in stay)]]
        used = member.any(dim=0)
        signs = tuple(sign for sign, keep in zip(self.signs, used.tolist(), strict=True) if keep)
        names = tuple(self.names[i] for i in stay)
        return SignTable(self.task, self.modality, names, signs, self.rows[used], member[:, used])


@dataclass(frozen=True)
class Vocabulary:
    """Every distinct text once, [S] overall, and the tasks that use them."""

    texts: tuple[str, ...]
    tasks: Mapping[str, SignTable]

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
        return Vocabulary(self.texts, {name: task.without(withheld) for name, task in self.tasks.items()})


def build_vocabulary(books: Iterable[SignBook]) -> Vocabulary:
    """All tasks of all books; equal texts of whatever task are one row. Raises ConfigError for a task listed twice."""
    rows: dict[str, int] = {}
    tasks: dict[str, SignTable] = {}
    for book in books:
        for task, entry in book.tasks.items():
            if task in tasks:
                raise ConfigError(f"two sign lists describe task {task!r}; name only one of them in `signs`")
            groups = [entry.normal, *entry.categories.values()]
            signs = entry.vocabulary
            texts = [f"a {entry.modality} image showing {sign}" for sign in signs]
            index = torch.tensor([rows.setdefault(text, len(rows)) for text in texts])
            member = torch.tensor([[sign in group for sign in signs] for group in groups])
            tasks[task] = SignTable(task, entry.modality, tuple(entry.categories), signs, index, member)
    return Vocabulary(tuple(rows), tasks)


def name_texts(task: SignTable) -> list[str]:
    """What zero-shot CLIP would say: the normal text, then one per category, made of class names alone (ours)."""
    names = [name.replace("_", " ") for name in task.names]
    return [f"a normal {task.modality} image", *(f"a {task.modality} image with {name}" for name in names)]


def _nearest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=1)
    return f" (nearest: {close[0]!r})" if close else ""
