"""Support banks on disk: encoded once, used as often as wanted, by the very model that made them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from fed_fsad.data.samples import Sample
from fed_fsad.durable import replace
from fed_fsad.errors import CheckpointError, DataError
from fed_fsad.inference.trained import Trained
from fed_fsad.methods.method import SupportBank, digest
from fed_fsad.names import suggestion
from fed_fsad.residents import rows_of
from fed_fsad.rundir import first_difference

FORMAT = "fed_fsad bank/1"


@dataclass(frozen=True)
class NamedBank:
    """A support bank, what its K images are called, and the model that encoded them (`Trained.model`)."""

    bank: SupportBank
    names: tuple[str, ...]
    model: Mapping[str, Any]

    def add(self, other: "NamedBank") -> "NamedBank":
        """Both banks' images; those that this bank already holds are left out.

        Raises DataError when the tasks differ, or when two images have one name.
        """
        known = set(self.bank.ids)
        new = [i for i, name in enumerate(other.bank.ids) if name not in known]
        if twice := [other.names[i] for i in new if other.names[i] in self.names]:
            raise DataError(f"the bank holds another image called {twice[0]!r}; rename the new one")
        try:
            joined = self.bank.add(other.bank.remove([name for name in other.bank.ids if name in known]))
        except ValueError as error:
            raise DataError(f"{error}; state the bank's own with --task") from error
        return NamedBank(joined, self.names + tuple(other.names[i] for i in new), self.model)

    def remove(self, names: Sequence[str]) -> "NamedBank":
        """The bank without the images of these names. Raises DataError for a name it does not hold, or for all."""
        for name in names:
            if name not in self.names:
                raise DataError(f"the bank holds no image {name!r}; {suggestion(name, self.names)}")
        keep = [i for i, name in enumerate(self.names) if name not in names]
        if not keep:
            raise DataError("that would leave the bank empty; keep an image, or remove the file")
        gone = [self.bank.ids[i] for i, name in enumerate(self.names) if name in names]
        return NamedBank(self.bank.remove(gone), tuple(self.names[i] for i in keep), self.model)


def encode(
    model: Trained, supports: Sequence[Sample], task: str, progress: Callable[[int, int], None] | None = None
) -> NamedBank:
    """The bank of these supports. Raises DataError when they cannot serve the method or one cannot be read."""
    rows = rows_of(model.method, progress)(supports)
    return NamedBank(model.method.fit_support(rows, task), tuple(x.source.name for x in supports), model.model)


def save_bank(path: Path, named: NamedBank) -> None:
    """Write a bank, whole or not at all."""
    bank = named.bank
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in bank.tensors.items()}
    about = {
        "format": FORMAT,
        "model": named.model,
        "task": bank.task,
        "ids": bank.ids,
        "categories": bank.categories,
        "names": named.names,
        "tensors": list(tensors),
        "sha256": digest(tensors),
    }
    replace(path, save(tensors, {"bank": json.dumps(about)}))


def load_bank(path: Path, model: Trained | None = None) -> NamedBank:
    """A bank as it was saved.

    Raises CheckpointError when the file is missing, damaged, or was made by another model than `model`.
    """
    try:
        about, tensors = _read(path)
        held = {name: tensors[name] for name in about["tensors"]}
        found = SupportBank(str(about["task"]), tuple(about["ids"]), tuple(map(tuple, about["categories"])), held)
        named = NamedBank(found, tuple(about["names"]), dict(about["model"]))
        intact = about["format"] == FORMAT and about["sha256"] == digest(tensors)
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist; make it with fed-fsad bank make") from None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a support bank ({type(error).__name__}); {_REMEDY}") from error
    if not intact:
        raise CheckpointError(f"{path} is damaged; {_REMEDY}")
    if model is not None and (difference := first_difference(named.model, dict(model.model))):
        raise CheckpointError(f"{path} was made by another model: {difference}; {_REMEDY}")
    return named


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    data = path.read_bytes()
    with safe_open(path, framework="pt") as file:
        about: dict[str, Any] = json.loads(file.metadata()["bank"])
    return about, load(data)


_REMEDY = "make it anew with fed-fsad bank make"
