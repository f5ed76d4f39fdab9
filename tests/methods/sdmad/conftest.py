"""A tiny open_clip model with a tokenizer of a few merges, a sign book of two tasks, and images of noise."""

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fed_fsad.data.episodes import Episode
from fed_fsad.data.features import Rows
from fed_fsad.data.samples import Image, Mask, Sample
from fed_fsad.data.signs import SignBook
from fed_fsad.methods.sdmad.backbone import Backbone, build_embedded, freeze, small_tokenizer
from fed_fsad.methods.sdmad.detector import SdMad
from fed_fsad.methods.sdmad.settings import Settings
from fed_fsad.methods.sdmad.vocabulary import Vocabulary, build_vocabulary

TINY: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 24, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16},
        "text_cfg": {"context_length": 80, "vocab_size": 518, "width": 16, "heads": 2, "layers": 4},
    },
    "preprocess_cfg": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]},
}
BOOK = SignBook.model_validate(
    {
        "brain": {
            "modality": "brain MRI",
            "normal": ["even grey matter", "clear ventricles", "straight midline"],
            "categories": {
                "tumour": ["round bright mass", "shifted midline", "dark core", "swelling"],
                "bleed": ["bright crescent", "swelling"],
                "cyst": ["thin dark ring"],
            },
        },
        "chest": {
            "modality": "chest X-ray",
            "normal": ["dark clear lungs", "sharp heart border"],
            "categories": {"opacity": ["white patch", "lost border"], "effusion": ["blunt angle"]},
        },
    }
)


@dataclass(frozen=True)
class Noise:
    """An image of seeded noise."""

    seed: int

    @property
    def name(self) -> str:
        return f"noise {self.seed}"

    def image(self, size: int) -> Image:
        return np.random.default_rng(self.seed).random((3, size, size), dtype=np.float32)

    def mask(self, size: int) -> Mask | None:
        return None


LABELS = [
    ("brain", ()),
    ("brain", ("tumour",)),
    ("chest", ("opacity", "effusion")),
    ("brain", ("bleed", "tumour")),
    ("chest", ()),
    ("brain", ()),
    ("brain", ("bleed",)),
    ("brain", ("tumour",)),
]


def samples_of(labels: list[tuple[str, tuple[str, ...]]]) -> tuple[Sample, ...]:
    return tuple(Sample(str(i), task, names, None, Noise(i)) for i, (task, names) in enumerate(labels))


def episode_of(rows: Rows) -> Episode:
    every = torch.arange(len(rows))
    return Episode(rows, every, torch.empty(len(rows), 0, dtype=torch.long), every)


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors here are too small to share between threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def merges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merges file of four merges."""
    path = tmp_path_factory.mktemp("clip") / "bpe.txt.gz"
    path.write_bytes(gzip.compress(b"#version\ni n\ni m\na g\nag e</w>"))
    return path


@pytest.fixture(scope="session")
def backbone(merges: Path) -> Backbone:
    tokenizer = small_tokenizer(merges, TINY["model_cfg"]["text_cfg"]["context_length"])
    return freeze("tiny", build_embedded(TINY, 3), tokenizer, [0.5, 0.4, 0.3], [0.2, 0.3, 0.4], 24)


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return build_vocabulary([BOOK])


@pytest.fixture
def method(backbone: Backbone, vocabulary: Vocabulary) -> Callable[..., SdMad]:
    """A method on the tiny model; keyword arguments are settings, `seed` and `vocabulary`."""

    def make(seed: int = 0, vocabulary: Vocabulary = vocabulary, **settings: object) -> SdMad:
        chosen = Settings.model_validate({"text_bottleneck": 8, "image_bottleneck": 8} | settings)
        return SdMad(backbone, vocabulary, chosen, seed)

    return make


@pytest.fixture
def rows() -> Callable[..., Rows]:
    """Noise images as a method sees them, labelled as LABELS or as told."""

    def make(method: SdMad, labels: list[tuple[str, tuple[str, ...]]] = LABELS) -> Rows:
        samples = samples_of(labels)
        images = torch.from_numpy(np.stack([sample.source.image(method.image_size) for sample in samples]))
        return Rows(method.features(images), samples)

    return make
