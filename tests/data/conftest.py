"""What the tests of the data floor share: small image folders on disk, and the real sets where they lie."""

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


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """{"train/normal": 3, ...} to a data set with so many different images per class folder."""

    def make(counts: Mapping[str, int]) -> Path:
        root, seed = tmp_path / "set", 0
        for folder, count in counts.items():
            for i in range(count):
                seed += 1
                write_image(root / folder / f"{i:03}.png", seed)
        return root

    return make


@pytest.fixture
def shared() -> Path:
    """The folder with the real sets; without it the test is skipped."""
    default = Path(__file__).resolve().parents[3] / "shared"
    path = Path(os.environ.get("FED_FSAD_SHARED", default)) / "data"
    if not path.is_dir():
        pytest.skip("no shared real images here")
    return path
