"""A method whose scores are written down beside each image, so every figure can be worked out by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fed_fsad.data.episodes import Episode, EpisodeSpec
from fed_fsad.data.features import Features, Rows
from fed_fsad.data.samples import Image, Mask, Sample
from fed_fsad.methods.method import Method, Protocol, Scores, SupportBank

SIZE = 8


@dataclass(frozen=True)
class FakeSource:
    """A flat image of brightness `value`; `lesion` abnormal rows from the top, None when nobody marked it."""

    name: str
    value: float
    lesion: int | None = 0
    score: float = 0.0
    signs: tuple[float, ...] = ()

    def image(self, size: int) -> Image:
        return np.full((3, size, size), self.value, dtype=np.float32)

    def mask(self, size: int) -> Mask | None:
        if self.lesion is None:
            return None
        mask = np.zeros((size, size), dtype=bool)
        mask[: self.lesion] = True
        return mask


def sample(
    name: str,
    *categories: str,
    task: str = "brain",
    value: float = 0.0,
    score: float = 0.0,
    signs: tuple[float, ...] = (),
    lesion: int | None = 0,
) -> Sample:
    """An image called `name`, normal without categories."""
    return Sample(f"id-{name}", task, categories, None, FakeSource(name, value, lesion, score, signs))


def source_of(one: Sample) -> FakeSource:
    """The sample's source, with all that is written down."""
    assert isinstance(one.source, FakeSource)
    return one.source


def rows_of(samples: Sequence[Sample]) -> Rows:
    """What is written down: "score" [N], "value" [N, 1], "signs" [N, M], and "map" [N, 8, 8], bright on top."""
    known = [source_of(one) for one in samples]
    ramp = torch.linspace(1, 0, SIZE).view(1, SIZE, 1).expand(len(known), SIZE, SIZE)
    score = torch.tensor([source.score for source in known])
    features = {
        "score": score,
        "value": torch.tensor([[source.value] for source in known]),
        "signs": torch.tensor([source.signs for source in known]),
        "map": ramp + score.view(-1, 1, 1),
    }
    return Rows(features, tuple(samples))


class KnownScores(Method):
    """Says of every image what is written down; remembers which supports it was given."""

    name = "known"
    protocol: ClassVar[Protocol] = "detection"

    def __init__(self, names: tuple[str, ...] = (), maps: bool = False) -> None:
        self.names = names
        self.maps = maps
        self.supports: list[tuple[str, ...]] = []

    @property
    def image_size(self) -> int:
        return SIZE

    @property
    def model_id(self) -> str:
        return "known"

    @property
    def episode(self) -> EpisodeSpec:
        return EpisodeSpec(supports=0, normals_only=False, batch=1)

    def trainable(self) -> dict[str, Tensor]:
        return {}

    def features(self, images: Tensor) -> Features:
        return {"value": images.mean(dim=(1, 2, 3))[:, None]}

    def losses(self, episode: Episode) -> Tensor:
        return torch.zeros(len(episode.query))

    def fit_support(self, support: Rows, task: str) -> SupportBank:
        ids = tuple(one.id for one in support.samples)
        self.supports.append(ids)
        categories = tuple(one.categories for one in support.samples)
        return SupportBank(task, ids, categories, {"value": support.features["value"]})

    def score(self, features: Features, bank: SupportBank) -> Scores:
        heat = features["map"] if self.maps else None
        if not self.names:
            return Scores(features["score"], heat)
        return Scores(features["score"], heat, features["signs"], self.names)

    def embedding(self, features: Features) -> Tensor:
        return features["value"]


class NearestValue(KnownScores):
    """As far from normal as the brightness of the nearest support is."""

    name = "nearest"

    def score(self, features: Features, bank: SupportBank) -> Scores:
        return Scores((features["value"] - bank.tensors["value"].T).abs().amin(dim=1))

    def baselines(self, features: Features, support: Rows, task: str) -> dict[str, Scores]:
        return {"own": Scores(-features["value"][:, 0])}


class KnownCategories(KnownScores):
    """Tells categories apart."""

    protocol = "categories"


class WithSigns(KnownCategories):
    """Chooses the first of two signs of every category."""

    def selected_signs(self, bank: SupportBank) -> Mapping[str, Sequence[tuple[str, float, bool]]]:
        return {name: [(f"{name} rim", 0.9, True), (f"{name} haze", float("nan"), False)] for name in self.names}

    def sign_evidence(self, features: Features, bank: SupportBank) -> Sequence[Mapping[str, Mapping[str, float]]]:
        return [
            {name: {f"{name} rim": float(x) + 0.5, f"{name} haze": float(x) - 0.5} for name, x in pairs}
            for pairs in (zip(self.names, row, strict=True) for row in features["signs"])
        ]
