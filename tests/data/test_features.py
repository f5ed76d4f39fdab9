"""The cache: each image encoded once, the same bits in any company, old ones forgotten."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fed_fsad.data.feature_store import FeatureStore
from fed_fsad.data.features import FeatureCache, Rows
from fed_fsad.data.samples import Image, Mask, Sample
from fed_fsad.errors import DataError
from fed_fsad.seeds import torch_stream


@dataclass
class Counted:
    """A source of noise that counts how often it is read."""

    seed: int
    reads: list[int] = field(default_factory=list)
    name = "noise"

    def image(self, size: int) -> Image:
        self.reads.append(size)
        return np.random.default_rng(self.seed).random((3, size, size), dtype=np.float32)

    def mask(self, size: int) -> Mask | None:
        return None


def reads(sample: Sample) -> list[int]:
    assert isinstance(sample.source, Counted)
    return sample.source.reads


def samples(count: int) -> list[Sample]:
    return [Sample(f"id{i}", "oct", (), None, Counted(i)) for i in range(count)]


class Net:
    """Strided convolutions wide enough for the library to choose its fast kernels, and a small head."""

    def __init__(self) -> None:
        layers = [nn.Conv2d(3, 48, 3, 2, 1), nn.ReLU(), nn.Conv2d(48, 96, 3, 1, 1), nn.ReLU(), nn.Conv2d(96, 64, 1)]
        self.body = nn.Sequential(*layers)
        stream = torch_stream(0, "net")
        for tensor in self.body.parameters():
            tensor.data.normal_(0, 0.1, generator=stream)

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        maps = self.body(images)
        return {"map": maps, "pooled": maps.mean((2, 3))}


NET = Net()


def test_rows_are_what_the_network_says_in_order() -> None:
    own = samples(5)
    rows = FeatureCache(1 << 30).rows("net", NET, 32, own)
    assert rows.samples == tuple(own)
    assert rows.features["map"].shape == (5, 64, 16, 16)
    assert not rows.features["map"].requires_grad
    with torch.no_grad():
        together = NET(torch.stack([torch.from_numpy(sample.source.image(32)) for sample in own]))
    for name, tensor in together.items():
        torch.testing.assert_close(rows.features[name], tensor, atol=1e-5, rtol=1e-5)


def test_an_image_has_the_same_bits_in_any_company() -> None:
    own = samples(9)
    alone = [FeatureCache(0).rows("net", NET, 32, [sample]) for sample in own]
    for order in ([0, 1, 2, 3, 4, 5, 6, 7, 8], [8, 3, 5], [4, 0]):
        rows = FeatureCache(1 << 30).rows("net", NET, 32, [own[i] for i in order])
        for name, tensor in rows.features.items():
            assert torch.equal(tensor, torch.cat([alone[i].features[name] for i in order]))


def test_only_new_images_are_read_and_progress_counts_them() -> None:
    own, cache = samples(5), FeatureCache(1 << 30)
    seen: list[tuple[int, int]] = []
    first = cache.rows("net", NET, 16, [own[0], own[1], own[0]], lambda *at: seen.append(at))
    again = cache.rows("net", NET, 16, own[1:4], lambda *at: seen.append(at))
    assert seen == [(1, 2), (2, 2), (1, 2), (2, 2)]
    assert [len(reads(sample)) for sample in own] == [1, 1, 1, 1, 0]
    assert torch.equal(first.features["pooled"][1], again.features["pooled"][0])
    assert torch.equal(first.features["pooled"][0], first.features["pooled"][2])


def test_another_model_or_size_is_another_row() -> None:
    own, cache = samples(1), FeatureCache(1 << 30)
    cache.rows("net", NET, 16, own)
    bigger = cache.rows("net", NET, 32, own)
    assert bigger.features["map"].shape[-1] == 16
    other = cache.rows("other", lambda images: {"mean": images.mean((1, 2, 3))}, 16, own)
    assert set(other.features) == {"mean"}
    assert reads(own[0]) == [16, 32, 16]


def test_the_least_recently_used_are_forgotten() -> None:
    own = samples(4)
    probe = FeatureCache(1 << 30)
    probe.rows("net", NET, 16, own[3:])
    row = 4 * (64 * 8 * 8 + 64)
    assert probe.bytes == row
    cache = FeatureCache(2 * row)
    for i in (0, 1, 0, 2, 0, 1):  # 2 pushes 1 out, because 0 was used after it
        cache.rows("net", NET, 16, [own[i]])
        assert cache.bytes <= 2 * row
    assert [len(reads(sample)) for sample in own[:3]] == [1, 2, 1]


def test_a_call_larger_than_the_cache_still_answers() -> None:
    own, cache = samples(4), FeatureCache(0)
    rows = cache.rows("net", NET, 16, own)
    assert len(rows) == 4
    assert cache.bytes == 0


def test_no_samples_and_selection() -> None:
    with pytest.raises(DataError, match="no image to look at"):
        FeatureCache(1).rows("net", NET, 16, [])
    own = samples(3)
    rows = Rows({"x": torch.arange(3)}, tuple(own)).select([2, 0])
    assert rows.features["x"].tolist() == [2, 0]
    assert rows.samples == (own[2], own[0])


def test_a_store_gives_the_bits_of_features_computed_anew_and_spares_the_reading(tmp_path: Path) -> None:
    own = samples(4)
    plain = FeatureCache(1 << 30).rows("net", NET, 32, own)
    FeatureCache(1 << 30, FeatureStore(tmp_path, 1 << 30)).rows("net", NET, 32, own[:3])
    seen: list[tuple[int, int]] = []
    later = FeatureCache(1 << 30, FeatureStore(tmp_path, 1 << 30))
    rows = later.rows("net", NET, 32, own, lambda *at: seen.append(at))
    assert all(torch.equal(rows.features[name], tensor) for name, tensor in plain.features.items())
    assert [len(reads(sample)) for sample in own] == [2, 2, 2, 2]
    assert seen == [(1, 1)]
    assert later.rows("other", NET, 32, own[:1]).samples == (own[0],)
    assert len(reads(own[0])) == 3


def test_halved_features_are_the_same_whether_computed_or_read(tmp_path: Path) -> None:
    own = samples(2)
    plain = FeatureCache(1 << 30).rows("net", NET, 32, own)
    store = FeatureStore(tmp_path, 1 << 30)
    computed = FeatureCache(1 << 30, store, half=True).rows("net", NET, 32, own)
    read = FeatureCache(1 << 30, store, half=True).rows("net", NET, 32, own)
    for name, tensor in plain.features.items():
        assert computed.features[name].dtype == torch.float32
        assert torch.equal(computed.features[name], read.features[name])
        assert torch.equal(computed.features[name], tensor.half().float())
    assert [len(reads(sample)) for sample in own] == [2, 2]


def test_what_float16_cannot_hold_stays_float32() -> None:
    rows = FeatureCache(1 << 30, half=True).rows("net", lambda images: {"x": images.mean((2, 3)) * 1e6}, 16, samples(1))
    assert float(rows.features["x"].min()) > 1e5
