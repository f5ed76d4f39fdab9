"""A small detector and small data: quick enough to recompute every private gradient the slow way."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fed_fsad.data.episodes import Episode, EpisodeSpec
from fed_fsad.data.features import Features, Rows
from fed_fsad.data.samples import Image, Mask, Sample
from fed_fsad.methods.method import Method, Protocol, Scores, SupportBank


@dataclass(frozen=True)
class NoSource:
    """An image nobody reads."""

    name: str

    def image(self, size: int) -> Image:
        raise AssertionError("the split must not look at pixels")

    def mask(self, size: int) -> Mask | None:
        raise AssertionError("the split must not look at masks")


class Toy(Method):
    """Distance of a query to the mean of its supports after one linear map; nothing else is trained."""

    name: ClassVar[str] = "toy"
    protocol: ClassVar[Protocol] = "detection"

    def __init__(self, seed: int = 0, supports: int = 2, width: int = 5) -> None:
        self.graphs: list[Episode] = []
        self._supports = supports
        stream = torch.Generator().manual_seed(seed)
        self.map = torch.randn(3, width, generator=stream).requires_grad_()
        self.shift = torch.randn(3, generator=stream).requires_grad_()
        self.idle = torch.ones(2).requires_grad_()

    @property
    def image_size(self) -> int:
        return 8

    @property
    def model_id(self) -> str:
        return "toy"

    @property
    def episode(self) -> EpisodeSpec:
        return EpisodeSpec(supports=self._supports, normals_only=True, batch=4)

    def trainable(self) -> dict[str, Tensor]:
        return {"map/weight": self.map, "map/shift": self.shift, "idle/weight": self.idle}

    def features(self, images: Tensor) -> Features:
        return {"x": images.flatten(1)}

    def losses(self, episode: Episode) -> Tensor:
        self.graphs.append(episode)
        seen = torch.tanh(episode.rows.features["x"] @ self.map.T + self.shift)
        reference = seen[episode.support].mean(1) if episode.support.shape[1] else torch.zeros(())
        return ((seen[episode.query] - reference) ** 2).sum(1)

    def fit_support(self, support: Rows, task: str) -> SupportBank:
        return SupportBank(task, (), (), {})

    def score(self, features: Features, bank: SupportBank) -> Scores:
        return Scores(features["x"].sum(1))

    def embedding(self, features: Features) -> Tensor:
        return features["x"]


def sample(name: str, patient: str | None = None, task: str = "organ", categories: tuple[str, ...] = ()) -> Sample:
    """An image without pixels."""
    return Sample(id=name, task=task, categories=categories, patient=patient, source=NoSource(name))


def rows(samples: Sequence[Sample], width: int = 5, seed: int = 1, scale: float = 3.0) -> Rows:
    """Random features for `samples`, [N, width]; an image's own features do not depend on the others."""
    features = [
        scale * torch.randn(width, generator=torch.Generator().manual_seed(hash_of(s.id) + seed)) for s in samples
    ]
    return Rows({"x": torch.stack(features) if features else torch.zeros(0, width)}, tuple(samples))


def hash_of(name: str) -> int:
    """A small number that is the same in every process."""
    return sum((place + 1) * ord(letter) for place, letter in enumerate(name))


def images(count: int) -> list[Sample]:
    """`count` normal images of unknown patients."""
    return [sample(f"image{number:03d}") for number in range(count)]
