"""A method on a GPU: nothing it computes with stays behind. Without a GPU, tensors that only claim to lie on one."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fed_fsad import methods
from fed_fsad.data.episodes import Episode, sample_episode
from fed_fsad.data.features import FeatureCache
from fed_fsad.data.phantoms import phantom_set
from fed_fsad.methods.method import Method
from fed_fsad.methods.training import train
from fed_fsad.seeds import numpy_stream

CUDA = torch.device("cuda")
CASES = [
    ("d24fad", {}),
    ("d24fad", {"norm": "batch", "l2w_scale": "sqrt_c", "tsd_weight": 1.0}),
    ("sdmad", {}),
    ("sdmad", {"trainable": ["context"], "selection": "none", "withheld": ["drusen"]}),
]
OURS = ("fed_fsad", "open_clip")


def prepared(name: str, chosen: dict[str, Any]) -> tuple[Method, Episode]:
    """A method of real tensors on the CPU, and an episode of it."""
    method = methods.build(name, methods.settings_type(name).model_validate({"batch": 3, **chosen}), 0)
    samples = [sample for sample in phantom_set("oct", 4, 3, 0, 1) if "drusen" not in sample.categories]
    rows = FeatureCache(1 << 30).rows(method.model_id, method.features, method.image_size, samples)
    return method, sample_episode(rows, method.episode, numpy_stream(0, "device"))


def tensors_of(thing: Any, seen: set[int]) -> Iterator[Tensor]:
    """Every tensor that can be reached from an object of ours."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Tensor):
        yield thing
    elif isinstance(thing, dict | list | tuple):
        for part in thing.values() if isinstance(thing, dict) else thing:
            yield from tensors_of(part, seen)
    elif isinstance(thing, nn.Module) or type(thing).__module__.startswith(OURS):
        yield from tensors_of(getattr(thing, "__dict__", {}), seen)


def faked(method: Method) -> Method:
    """The method with tensors that know their shape, dtype and device, and hold no values; lists of signs are real."""
    lists = [part for name, part in vars(method).items() if name in ("_vocabulary", "_trained")]
    stand_ins: dict[int, Any] = {id(part): part for part in lists}
    for tensor in tensors_of(method, set(stand_ins)):
        fake = torch.empty(tensor.shape, dtype=tensor.dtype)
        is_parameter = isinstance(tensor, nn.Parameter)
        stand_ins[id(tensor)] = (
            nn.Parameter(fake, tensor.requires_grad) if is_parameter else fake.requires_grad_(tensor.requires_grad)
        )
    return copy.deepcopy(method, stand_ins)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> FakeTensorMode:
    """Torch's stand-ins can be moved in place, as the real ones are."""

    def put(self: Any, value: Any) -> None:
        self.fake_device = value.fake_device

    def moved(self: nn.Module, change: Any, recurse: bool = True) -> nn.Module:
        for tensor in (*self.parameters(), *self.buffers()):
            tensor.data = change(tensor)
        return self

    monkeypatch.setattr(FakeTensor, "data", property(lambda self: self.detach(), put), raising=False)
    monkeypatch.setattr(nn.Module, "_apply", moved)
    return FakeTensorMode(allow_non_fake_inputs=True)


@pytest.mark.parametrize(("name", "chosen"), CASES)
def test_losses_features_and_scores_lie_where_the_method_was_moved(
    name: str, chosen: dict[str, Any], pretended: FakeTensorMode
) -> None:
    real, episode = prepared(name, chosen)
    with pretended:
        method = faked(real)
        method.to(CUDA)
        there = replace(episode, rows=episode.rows.to(CUDA))
        assert {tensor.device.type for tensor in method.trainable().values()} == {"cuda"}
        assert method.losses(there).device.type == "cuda"
        image = torch.empty(1, 3, method.image_size, method.image_size, device=CUDA)
        assert {tensor.device.type for tensor in method.features(image).values()} == {"cuda"}
        assert method.embedding(there.rows.features).device.type == "cuda"
    if name == "d24fad":
        normals = there.rows.select([0, 1])
        with pretended:
            bank = method.fit_support(normals, "oct")
            assert method.score(there.rows.features, bank).image.device.type == "cuda"


@pytest.mark.parametrize("name", ["d24fad", "sdmad"])
def test_what_is_left_on_the_cpu_would_be_seen(name: str, pretended: FakeTensorMode) -> None:
    real, _ = prepared(name, {})
    with pretended:
        method = faked(real)
        Method.to(method, CUDA)  # moves what trains, and forgets what is frozen
        image = torch.empty(1, 3, method.image_size, method.image_size, device=CUDA)
        with pytest.raises(RuntimeError, match="same device"):
            method.features(image)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize(("name", "chosen"), CASES)
def test_a_gpu_trains_and_scores_as_the_cpu_does(name: str, chosen: dict[str, Any]) -> None:
    found = []
    for device in (torch.device("cpu"), CUDA):
        method, episode = prepared(name, chosen)
        if device == CUDA:
            method.to(CUDA)
        rows = episode.rows.to(device)
        parts = {tensor.split("/")[0] for tensor in method.trainable()}
        settings = methods.settings_type(name).model_validate({"batch": 3, "lr": 1e-5, **chosen})
        log = train(method, settings, rows, parts=parts, stream=(0, "north", 1), steps=2)
        bank = method.fit_support(rows.select([0, 1]), "oct")
        found.append((log.loss, method.score(rows.features, bank).image.cpu()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-3)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-3, rtol=1e-3)
