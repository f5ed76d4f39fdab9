"""The student's parameter counts, shapes and blocks."""

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fed_fsad.methods.d24fad.backbones import SMALL, TORCHVISION
from fed_fsad.methods.d24fad.student import Student
from fed_fsad.methods.d24fad.teacher import Anatomy
from fed_fsad.methods.d24fad.weighting import LearnToWeight

TINY = Anatomy((16, 32, 64, 128), (2, 1, 2), 2)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_counts_for_wide_resnet50_2_are_the_papers(norm: Literal["group", "batch"]) -> None:
    """Golden test 6: 24.92 M and 1.378 M, to the unit."""
    anatomy = TORCHVISION["wide_resnet50_2"]
    with torch.device("meta"):
        assert count(Student(anatomy, norm)) == 24_917_504
        assert count(LearnToWeight(anatomy.widths[:3], "sqrt_chw")) == 1_378_048


@pytest.mark.parametrize("anatomy", [SMALL, TINY, TORCHVISION["resnet18"], TORCHVISION["resnet50"]])
def test_stages_mirror_the_teachers(anatomy: Anatomy) -> None:
    with torch.device("meta"):
        student = Student(anatomy, "group")
        outputs = student(torch.empty(2, anatomy.widths[3], 2, 2))
    shapes = [tuple(output.shape) for output in outputs]
    assert shapes == [(2, width, side, side) for width, side in zip(anatomy.widths[:3], (16, 8, 4), strict=True)]
    assert tuple(len(list(stage.children())) for stage in student.stages) == anatomy.blocks


@pytest.mark.parametrize("anatomy", [TINY, Anatomy((16, 32, 64, 128), (1, 2, 1), None)])
def test_blocks_compute_what_the_paper_draws(anatomy: Anatomy) -> None:
    """The decoder again, written flat over its tensors in order."""
    torch.manual_seed(3)
    student = Student(anatomy, "group")
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
    tensors = iter(student.state_dict().values())

    def norm(x: Tensor) -> Tensor:
        return F.group_norm(x, x.shape[1] // 8, next(tensors), next(tensors))

    def resize(x: Tensor, upsample: bool) -> Tensor:
        kernel = next(tensors)
        return norm(F.conv_transpose2d(x, kernel, stride=2) if upsample else F.conv2d(x, kernel, padding=1))

    x = torch.randn(2, 128, 2, 2)
    expected: list[Tensor] = []
    e4 = x
    for blocks in anatomy.blocks:
        for block in range(blocks):
            y = x if anatomy.squeeze is None else norm(F.conv2d(x, next(tensors))).relu()
            y = resize(y, block == 0).relu()
            y = norm(F.conv2d(y, next(tensors), padding=1 if anatomy.squeeze is None else 0))
            x = (y + (norm(F.conv_transpose2d(x, next(tensors), stride=2)) if block == 0 else x)).relu()
        expected.insert(0, x)
    assert next(tensors, None) is None
    for ours, flat in zip(student(e4), expected, strict=True):
        assert torch.allclose(ours, flat, atol=1e-5)


def test_a_rows_features_depend_on_that_row_alone() -> None:
    torch.manual_seed(0)
    student = Student(SMALL, "group").train()
    e4 = torch.rand(5, 192, 2, 2)
    for together, alone in zip(student(e4), student(e4[2:3]), strict=True):
        assert torch.allclose(together[2:3], alone, atol=1e-5)
