"""Small methods, rows and episodes for the tests of D²4FAD."""

import numpy as np
import torch
from torch import Tensor

from fed_fsad.data.episodes import Episode
from fed_fsad.data.features import Features, Rows
from fed_fsad.data.samples import Image, Mask, Sample
from fed_fsad.methods.d24fad import Settings, build
from fed_fsad.methods.d24fad.detector import D24FAD
from tests.reference.d24fad import Array

SIZE = 64
TASK = "brain_mri"


class Grey:
    """A source of grey pixels: the tests give features, so nobody looks."""

    name = "grey"

    def image(self, size: int) -> Image:
        return np.full((3, size, size), 0.5, dtype=np.float32)

    def mask(self, size: int) -> Mask | None:
        return None


def settings(**changes: object) -> Settings:
    return Settings.model_validate({"teacher": {"name": "random"}, "image_size": SIZE, **changes})


def method(seed: int = 0, **changes: object) -> D24FAD:
    return build(settings(**changes), seed)


def images(count: int, seed: int = 0) -> Tensor:
    """[count, 3, SIZE, SIZE]: smooth blobs that differ from image to image."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic").clamp(0, 1)


def rows(features: Features, task: str = TASK, categories: tuple[str, ...] = ()) -> Rows:
    count = len(features["e4"])
    return Rows(features, tuple(Sample(f"image{i}", task, categories, None, Grey()) for i in range(count)))


def episode(data: Rows, query: list[int], support: list[list[int]], record: list[int] | None = None) -> Episode:
    records = torch.arange(len(query)) if record is None else torch.tensor(record)
    return Episode(data, torch.tensor(query), torch.tensor(support), records)


def array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()
