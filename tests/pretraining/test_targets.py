from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import pretraining.targets as targets
from fed_fsad.methods.d24fad.backbones import SMALL
from fed_fsad.methods.d24fad.resnet import SmallResNet
from fed_fsad.methods.d24fad.teacher import Teacher
from pretraining.photographs import crop
from pretraining.targets import ENLARGED, make_targets, seen

CPU = torch.device("cpu")


def reference() -> Teacher:
    """A stand-in for the large network, with as many channels as are kept of it at least."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Teacher(SmallResNet(widths=(64, 128, 192, 128)), SMALL, "stand-in").to(CPU)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "CHUNK", 4)


def test_targets_lie_on_the_small_networks_grids(tmp_path: Path) -> None:
    made = make_targets(reference(), CPU, 0, 8, 64, tmp_path)
    assert made.images.shape == (8, 3, 64, 64)
    assert made.images.dtype == torch.uint8
    assert [stage.shape for stage in made.stages] == [(8, 64, 16, 16), (8, 128, 8, 8), (8, 192, 4, 4), (8, 128, 2, 2)]


def test_kept_directions_keep_the_cosines_of_the_large_network(tmp_path: Path) -> None:
    large = reference()
    made = make_targets(large, CPU, 0, 4, 64, tmp_path)

    def cosines(features: Tensor) -> Tensor:
        vectors = F.normalize(features.float().movedim(1, -1).flatten(0, 2), dim=1)
        return vectors @ vectors.T

    for whole, kept in zip(seen(large, CPU, made.images), made.stages, strict=True):
        torch.testing.assert_close(cosines(kept), cosines(whole), atol=0.01, rtol=0)


def test_the_large_network_sees_the_image_enlarged() -> None:
    large = reference()
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wide = F.interpolate(image.float() / 255, scale_factor=ENLARGED, mode="bilinear", align_corners=False)
    expected = large.stages(wide)[2].reshape(1, 192, 4, 2, 4, 2).mean((3, 5))
    torch.testing.assert_close(seen(large, CPU, image)[2], expected, atol=0.05, rtol=0.05)


def test_a_broken_preparation_goes_on_to_the_same_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = make_targets(reference(), CPU, 0, 8, 64, tmp_path / "whole")
    original, calls = targets.seen, []

    def breaks(*arguments: object) -> list[Tensor]:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(targets, "seen", breaks)
    with pytest.raises(KeyboardInterrupt):
        make_targets(reference(), CPU, 0, 8, 64, tmp_path / "broken")
    resumed = make_targets(reference(), CPU, 0, 8, 64, tmp_path / "broken")
    assert len(calls) == 3, "the first chunk is not made again"
    assert torch.equal(resumed.images, whole.images)
    assert all(torch.equal(one, other) for one, other in zip(resumed.stages, whole.stages, strict=True))


def test_crops_follow_from_their_stream_and_are_half_grey() -> None:
    crops = [crop(np.random.default_rng(i), 48) for i in range(60)]
    assert all(one.shape == (3, 48, 48) and one.dtype == np.float32 for one in crops)
    assert all(one.min() >= 0 and one.max() <= 1 for one in crops)
    assert (crop(np.random.default_rng(7), 48) == crops[7]).all()
    grey = sum(bool(np.ptp(np.clip(one, 0.02, 0.98), axis=0).max() < 0.3) for one in crops)
    assert 15 < grey < 50
    assert np.std([one.mean() for one in crops]) > 0.1
