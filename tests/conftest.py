"""What tests share: small image folders on disk, and the real sets where they lie."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeFolder = Callable[[Mapping[str, int]], Path]


def write_image(path: Path, seed: int, size: tuple[int, int] = (16, 12)) -> None:
    """A grey PNG of (width, height) pixels whose content follows from `seed`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, size[::-1], dtype=np.uint8)
    Image.fromarray(values).save(path)


def write_set(root: Path, counts: Mapping[str, int]) -> Path:
    """{"train/normal": 3, ...} to a data set with so many different images per class folder."""
    seed = 0
    for folder, count in counts.items():
        for i in range(count):
            seed += 1
            write_image(root / folder / f"{i:03}.png", seed)
    return root


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """`write_set` into the test's own folder."""
    return lambda counts: write_set(tmp_path / "set", counts)


@pytest.fixture
def shared() -> Path:
    """The folder with the real sets; without it the test is skipped."""
    default = Path(__file__).resolve().parents[2] / "shared"
    path = Path(os.environ.get("FED_FSAD_SHARED", default)) / "data"
    if not path.is_dir():
        pytest.skip("no shared real images here")
    return path
