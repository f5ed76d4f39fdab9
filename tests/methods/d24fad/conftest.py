"""Fixtures for D²4FAD: one thread, and the shared ImageNet weights when they are here."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

PRUNED = "weights/resnet50_v1_pruned_imagenet.safetensors"


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """The tensors of these tests are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def pruned_resnet50() -> Path:
    """The pruned 8-bit ResNet-50; skips the test when the shared folder lacks it."""
    beside = Path(__file__).parents[3].parent / "shared"
    path = Path(os.environ.get("FED_FSAD_SHARED", beside)) / PRUNED
    if not path.is_file():
        pytest.skip("needs the shared ImageNet weights")
    return path
