"""The one contract: a method is a frozen part, a small trainable part, and four verbs."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from fed_fsad.data.episodes import Episode, EpisodeSpec
from fed_fsad.data.features import Features, Rows
from fed_fsad.data.samples import Sample

Protocol = Literal["detection", "categories"]


class TrainingSettings(BaseModel):
    """How a hospital trains a method between two messages; every method's own settings extend this."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    local_steps: int = Field(8, ge=1, description="gradient steps per round and site")
    lr: float = Field(1e-3, gt=0, description="Adam's step size")
    betas: tuple[float, float] = Field((0.5, 0.999), description="Adam's decay rates")
    batch: int = Field(16, ge=1, description="queries per step")
    withheld: tuple[str, ...] = Field((), description="categories nobody trains on; the run's unseen categories")
    local_parts: tuple[str, ...] = Field((), description="parts that every site trains for itself; they never travel")


@dataclass(frozen=True)
class Scores:
    """What a method says of B images; no row depends on any other.

    image: [B], higher is more abnormal. map: [B, H, W] in the input's resolution, or None.
    categories: [B, M], one score per name in `names` (> 0 leans to present), or None.
    """

    image: Tensor
    map: Tensor | None = None
    categories: Tensor | None = None
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class SupportBank:
    """K support images of one task, encoded; what `score` compares with.

    task: organ and modality. ids, categories: per support image. tensors: name to [K, ...].
    """

    task: str
    ids: tuple[str, ...]
    categories: tuple[tuple[str, ...], ...]
    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, other: "SupportBank") -> "SupportBank":
        """Both banks' images; nothing is encoded again. Raises ValueError when the tasks differ."""
        if other.task != self.task:
            raise ValueError(f"a bank of task {self.task!r} cannot take supports of task {other.task!r}")
        joined = {name: torch.cat([tensor, other.tensors[name]]) for name, tensor in self.tensors.items()}
        return SupportBank(self.task, self.ids + other.ids, self.categories + other.categories, joined)

    def remove(self, ids: Sequence[str]) -> "SupportBank":
        """The bank without the images called `ids`."""
        keep = [i for i, name in enumerate(self.ids) if name not in set(ids)]
        return SupportBank(
            self.task,
            tuple(self.ids[i] for i in keep),
            tuple(self.categories[i] for i in keep),
            {name: tensor[keep] for name, tensor in self.tensors.items()},
        )


class Method(ABC):
    """A detector a federation can train.

    Everything in `trainable()` may travel and nothing else ever does. Tensor names read "part/parameter": a part is
    what a policy allows or forbids and what is aggregated together. Adding a method is one folder under methods/ whose
    package exports `Settings` (a TrainingSettings) and `build(settings, seed) -> Method`.
    """

    name: ClassVar[str]
    protocol: ClassVar[Protocol]

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Side of the square input in pixels."""

    @property
    @abstractmethod
    def model_id(self) -> str:
        """A hash over frozen weights and transform: with an image's id it names the image's cached features."""

    @property
    def texts_id(self) -> str:
        """A hash over the texts that the tensors are trained with, hexadecimal; empty for a method without texts."""
        return ""

    @property
    @abstractmethod
    def episode(self) -> EpisodeSpec:
        """What one training step looks at."""

    @abstractmethod
    def trainable(self) -> dict[str, Tensor]:
        """The live float parameters by "part/parameter", in a fixed order."""

    @abstractmethod
    def features(self, images: Tensor) -> Features:
        """What the frozen part computes for [B, 3, S, S] images in [0, 1]; no gradient, no state."""

    @abstractmethod
    def losses(self, episode: Episode) -> Tensor:
        """One loss per query, [B]: plain training averages them, DP clips their gradients record by record."""

    @property
    def silent(self) -> frozenset[str]:
        """Trainable tensors whose gradient is zero whatever the images: under privacy noise alone would move them."""
        return frozenset()

    @property
    def mixes_images(self) -> bool:
        """Whether an image's loss depends on what else is in the batch beyond its supports, or leaves a trace."""
        return False

    @contextmanager
    def shared(self, samples: Sequence[Sample]) -> Iterator[Sequence[tuple[Tensor, Tensor]]]:
        """While this lasts, `losses` of images of the samples' tasks reuse what no image changes, computed once.

        Yields pairs: such an outcome with its graph, and the leaf that stands for it in `losses`. A method whose
        trained part always looks at images has none.
        """
        yield ()

    @property
    def network(self) -> nn.Module | None:
        """Modules that hold all trainable tensors and that `losses` runs through, so that gradients of many records can
        be taken at once; None where `losses` asks what an image is.
        """
        return None

    @abstractmethod
    def fit_support(self, support: Rows, task: str) -> SupportBank:
        """Encode K support images of one task. Raises DataError when they cannot serve this method."""

    @abstractmethod
    def score(self, features: Features, bank: SupportBank) -> Scores:
        """Score B query images against a bank; never depends on the rest of the batch."""

    def score_all(self, features: Features, banks: Sequence[SupportBank]) -> list[Scores]:
        """What `score` says of the same B images against each of several banks, to the bit.

        A method overrides it where something of a score does not depend on the bank.
        """
        return [self.score(features, bank) for bank in banks]

    def support_scores(self, bank: SupportBank) -> Tensor | None:
        """Leave-one-out image scores of the bank's normal supports, [K]: each as a query against the others.

        None when the method has none or a single support is left alone; methods/threshold.py makes thresholds of them.
        """
        return None

    @abstractmethod
    def embedding(self, features: Features) -> Tensor:
        """One frozen descriptor per image, [N, D]: what nearest-neighbour baselines compare."""

    def baselines(self, features: Features, support: Rows, task: str) -> dict[str, Scores]:
        """What this method's frozen part can say without any training, by baseline name."""
        return {}

    def untouched(self, samples: Sequence[Sample]) -> frozenset[str]:
        """Trainable tensors that say nothing of these images: a site that holds no others neither moves nor sends them.

        Raises DataError for an image that the method cannot be trained on.
        """
        return frozenset()

    def diagnostics(self, episode: Episode) -> dict[str, float]:
        """Figures worth watching while training, e.g. the mean cosine of student features."""
        return {}

    def to(self, device: torch.device) -> None:
        """Move what this method computes with, in place; images and features must lie there from then on.

        What is inherited moves what trains; a method adds what is frozen.
        """
        for tensor in self.trainable().values():
            tensor.data = tensor.data.to(device)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy values into the parameters of those names. Raises KeyError for a name that is not trainable."""
        own = self.trainable()
        with torch.no_grad():
            for name, value in tensors.items():
                own[name].copy_(value)

    def snapshot(self) -> dict[str, Tensor]:
        """Detached copies of the trainable tensors."""
        return {name: tensor.detach().clone() for name, tensor in self.trainable().items()}


def travelling(tensors: Mapping[str, Tensor], settings: TrainingSettings) -> dict[str, Tensor]:
    """The tensors that server and sites exchange: all but those of local parts."""
    return {name: tensor for name, tensor in tensors.items() if part_of(name) not in settings.local_parts}


def piece_of(name: str) -> str:
    """What is sent whole or not at all, and averaged over those who sent it: "context/chest/tokens" is of the piece
    "context/chest", "context/tokens" of "context", which is a whole part.
    """
    return name.rpartition("/")[0]


def part_of(name: str) -> str:
    """The part a tensor belongs to: "context/tokens" is of part "context"."""
    return name.split("/", 1)[0]


def digest(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, kinds and values."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()
