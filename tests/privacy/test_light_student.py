"""The light student under privacy: every record's gradient by the chain rule from that of whole kernels."""

import torch
from torch import Tensor

from fed_fsad.methods.d24fad.detector import D24FAD
from fed_fsad.methods.method import part_of
from fed_fsad.privacy.gradients import clipped_sum, select_records
from tests.methods.d24fad.helpers import episode, images, method, rows

CLIP = 0.02


def merged(light: D24FAD) -> D24FAD:
    """The full student with the light one's kernels: frozen ones plus their updates."""
    full = method(3)
    with torch.no_grad():
        for name, tensor in full.trainable().items():
            owner, leaf = name.split("/", 1)[1].rsplit(".", 1)
            network = light._weighting if part_of(name) == "weighting" else light._student
            tensor.copy_(getattr(network.get_submodule(owner), leaf))
    return full


def pulled_back(light: D24FAD, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
    """d up = dW downᵀ and d down = upᵀ dW of every kernel; scales and shifts keep theirs."""
    found = {}
    for name, tensor in light.trainable().items():
        part, path = name.split("/", 1)
        owner, leaf = path.rsplit(".", 1)
        if leaf not in ("up", "down"):
            found[name] = gradients[name]
            continue
        kernel = gradients[f"{'kernels' if part == 'lowrank' else part}/{owner}.weight"]
        matrix = kernel.reshape(len(kernel), -1)
        other = light.trainable()[f"{part}/{owner}.{'down' if leaf == 'up' else 'up'}"].detach()
        found[name] = matrix @ other.T if leaf == "up" else other.T @ matrix
        assert found[name].shape == tensor.shape
    return found


def test_clipped_gradients_of_a_light_student_are_the_slow_ones() -> None:
    light = method(3, student="light", rank=2)
    with torch.no_grad():  # away from the start, where every `down` has gradient zero
        for number, tensor in enumerate(light.trainable().values()):
            tensor.add_(0.05 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(number)))
    full = merged(light)
    features = light.features(images(6))
    data = episode(
        rows(features), [0, 1, 2, 3, 4, 5], [[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4]], [0, 0, 0, 1, 1, 1]
    )
    expected = {name: torch.zeros_like(tensor) for name, tensor in light.trainable().items()}
    for record in (0, 1):
        tensors = full.trainable()
        loss = full.losses(select_records(data, [record])).mean()
        gradients = dict(
            zip(tensors, torch.autograd.grad(loss, list(tensors.values()), allow_unused=True), strict=True)
        )
        own = pulled_back(light, {n: torch.zeros_like(tensors[n]) if g is None else g for n, g in gradients.items()})
        norm = sum(float((g**2).sum()) for g in own.values()) ** 0.5
        assert norm > CLIP
        for name, gradient in own.items():
            expected[name] += gradient * CLIP / norm
    found = clipped_sum(light, data, CLIP, list(light.trainable()))
    assert (found.records, found.clipped, found.invalid) == (2, 2, 0)
    for name, total in found.total.items():
        assert torch.allclose(total, expected[name], atol=1e-6, rtol=1e-3), name
    assert any(part_of(name) == "lowrank" and total.abs().sum() > 0 for name, total in found.total.items())
