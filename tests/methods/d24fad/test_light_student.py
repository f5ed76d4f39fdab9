"""The light student: what trains, what it weighs on the wire, what it starts from."""

import logging
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import nn

from fed_fsad.errors import CheckpointError
from fed_fsad.methods.d24fad import Settings, build, light
from fed_fsad.methods.d24fad.backbones import SMALL, TORCHVISION
from fed_fsad.methods.d24fad.light import lighten, student_parts, weighting_parts
from fed_fsad.methods.d24fad.student import Student
from fed_fsad.methods.d24fad.teacher import Anatomy
from fed_fsad.methods.d24fad.weighting import LearnToWeight
from fed_fsad.methods.method import part_of
from tests.methods.d24fad.helpers import episode, images, method, rows

MEGABYTE = 1_000_000


@pytest.mark.parametrize(
    ("anatomy", "rank"), [(SMALL, 4), (TORCHVISION["resnet50"], 4), (TORCHVISION["wide_resnet50_2"], 3)]
)
def test_what_travels_is_at_most_a_megabyte(anatomy: Anatomy, rank: int) -> None:
    student, weighting = Student(anatomy, "group"), LearnToWeight(anatomy.widths[:3], "sqrt_chw")
    for module in (student, weighting):
        lighten(module, rank)
    sent = student_parts(student) | weighting_parts(weighting)
    assert {part_of(name) for name in sent} == {"affine", "lowrank", "weighting"}
    assert sum(tensor.numel() * 4 for tensor in sent.values()) <= MEGABYTE


def test_a_light_student_is_the_full_one_until_it_trains() -> None:
    full, slim = method(3), method(3, student="light")
    for name, tensor in full._student.state_dict().items():
        kept = name.replace(".weight", ".parametrizations.weight.original")
        assert torch.equal(slim._student.state_dict().get(kept, slim._student.state_dict().get(name)), tensor)
    features = full.features(images(3))
    for ours, theirs in zip(slim._student(features["e4"]), full._student(features["e4"]), strict=True):
        assert torch.equal(ours, theirs)


def test_gradient_reaches_every_update_and_no_frozen_kernel() -> None:
    slim = method(3, student="light", rank=2)
    data = episode(rows(slim.features(images(5))), [0, 2, 3], [[1, 2], [4, 3], [0, 1]])
    optimiser = torch.optim.Adam(list(slim.trainable().values()), 1e-2)
    frozen = [p.clone() for p in (*slim._student.parameters(), *slim._weighting.parameters()) if not p.requires_grad]
    assert frozen
    for _ in range(2):  # at first `up` is zero and `down` therefore has no gradient
        optimiser.zero_grad()
        torch.autograd.backward(slim.losses(data).mean())
        optimiser.step()
    for name, tensor in slim.trainable().items():
        assert tensor.grad is not None, name
        assert tensor.grad.abs().sum() > 0, name
    after = [p for p in (*slim._student.parameters(), *slim._weighting.parameters()) if not p.requires_grad]
    assert all(torch.equal(old, new) for old, new in zip(frozen, after, strict=True))


def test_an_update_has_the_rank_that_was_asked_for_and_lies_on_the_right_kernel() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(nn.ConvTranspose2d(6, 4, 2, stride=2, bias=False))
    kernel = layer[0].weight.detach().clone()
    lighten(layer, 2)
    update = layer[0].parametrizations.weight[0]
    assert torch.equal(layer[0].weight, kernel)
    with torch.no_grad():
        update.up.normal_()
    change = (layer[0].weight - kernel).detach().reshape(6, 16)
    assert int(torch.linalg.matrix_rank(change)) == 2
    assert torch.allclose(change, update.up.detach() @ update.down.detach(), atol=1e-6)


def test_it_starts_from_a_file_or_says_that_it_does_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    donor = method(7)
    both = nn.ModuleDict({"student": donor._student, "weighting": donor._weighting})
    path = str(tmp_path / "student.safetensors")
    save_file({name: value.half() for name, value in both.state_dict().items()}, path)
    for kind in ("light", "full"):
        begun = method(3, student=kind, student_weights=path, l2w_scale="learned")
        # The teacher is drawn from the seed here, so features come from one of them.
        for ours, theirs in zip(
            begun._student(torch.ones(1, 192, 2, 2)), donor._student(torch.ones(1, 192, 2, 2)), strict=True
        ):
            assert torch.allclose(ours, theirs, atol=2e-2)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        method(3, student="light")
    assert "no trained student for teacher random" in caplog.text
    save_file({"student.x": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="does not fit the network"):
        method(3, student_weights=path)
    with pytest.raises(CheckpointError, match="no weights file nowhere"):
        method(3, student_weights="nowhere.safetensors")


def test_the_embedded_teacher_has_a_student_in_the_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    donor = build(Settings(student="full"), 7)
    both = nn.ModuleDict({"student": donor._student, "weighting": donor._weighting})
    asked: list[str] = []

    def load(relative: str) -> dict[str, torch.Tensor]:
        asked.append(relative)
        return {name: value.detach().clone() for name, value in both.state_dict().items()}

    monkeypatch.setattr(light, "load_asset", load)
    slim = build(Settings(student="light"), 1)
    e4 = torch.rand(2, 192, 3, 3)
    for ours, theirs in zip(slim._student(e4), donor._student(e4), strict=True):
        assert torch.equal(ours, theirs)
    assert asked == ["student/weights.safetensors"]


def test_light_and_batch_norm_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="a light student has no BatchNorm"):
        Settings.model_validate({"student": "light", "norm": "batch"})
