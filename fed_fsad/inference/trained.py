"""The detector that a run has trained, ready to score."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fed_fsad.config import Config
from fed_fsad.data.adapters import normal_names, task_of
from fed_fsad.data.phantoms import ORGANS
from fed_fsad.data.settings import FolderData, Reading
from fed_fsad.errors import CheckpointError, ConfigError
from fed_fsad.methods.method import Method, digest
from fed_fsad.names import suggestion
from fed_fsad.residents import resident
from fed_fsad.rundir import RunDir
from server.checkpoint import load_tensors


@dataclass(frozen=True)
class Trained:
    """A method that holds the tensors of one round of a run.

    model: what tells this model from every other, JSON-able: method, settings, hashes of the frozen tensors, of the
    texts and of the trained tensors. Equal models make equal support banks.
    """

    method: Method
    config: Config
    run: str
    round: int
    model: Mapping[str, Any]

    @property
    def reading(self) -> Reading:
        """How the run's own files became images; for phantoms the default."""
        data = self.config.data
        return data.reading if isinstance(data, FolderData) else Reading()

    @property
    def normal(self) -> tuple[str, ...]:
        """The class names that the run's own images called normal."""
        data = self.config.data
        return normal_names(data) if isinstance(data, FolderData) else ("normal",)

    def task(self, asked: str | None) -> str:
        """What the images show: as asked, or as the run's own images did. Raises ConfigError when that is not clear."""
        data = self.config.data
        if asked:
            return asked
        if isinstance(data, FolderData):
            return task_of(data)
        if self.method.protocol == "detection":
            return "images"  # any name will do: a detector compares with its supports and knows no task
        raise ConfigError(f"{self.method.name} reads signs of a task; name it with --task, one of {', '.join(ORGANS)}")


def load_trained(folder: Path, name: str | None, round_: int | None) -> Trained:
    """The model of a run directory after its last finished round, or after `round_`.

    name: which method; None where the run has trained one only. Raises ConfigError when it has no such method,
    CheckpointError when there is no run, no finished round, or a damaged one.
    """
    run = RunDir(folder)
    if not (folder / "config.yaml").is_file():
        raise CheckpointError(f"{folder} holds no run; give --run a run directory, e.g. runs/demo")
    config = run.config()
    chosen = _chosen(folder, config, name)
    settings = config.training[chosen]
    method = resident(chosen, settings, config.seed)
    reached, tensors = load_tensors(run.checkpoints, run.run_id, chosen, method.trainable(), round_, method.texts_id)
    method.load(tensors)
    model = {
        "method": chosen,
        "settings": settings.model_dump(mode="json"),
        "frozen": method.model_id,
        "texts": method.texts_id,
        "trained": digest(tensors),
    }
    return Trained(method, config, run.run_id, reached, model)


def _chosen(folder: Path, config: Config, name: str | None) -> str:
    known = sorted(config.methods)
    if name is None:
        if len(known) > 1:
            raise ConfigError(f"{folder} has trained {' and '.join(known)}; choose one with --method")
        return known[0]
    if name not in known:
        raise ConfigError(f"{folder} has no model of {name!r}; {suggestion(name, known)}")
    return name
