import pytest
import torch
from torch import Tensor

from fed_fsad.methods.d24fad.baselines import nearest_patch
from fed_fsad.methods.d24fad.scoring import combine
from pretraining.distil import Distillation, distillation_plan, kinds_of_patch, relation_loss
from pretraining.targets import Targets


def _stages(widths: tuple[int, ...], seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(6, w, s, s, generator=generator) for w, s in zip(widths, (16, 8, 4, 2), strict=True))


@pytest.fixture
def training() -> Distillation:
    images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    targets = Targets(images, tuple(stage.half() for stage in _stages((8, 12, 16, 8))))
    return Distillation(targets, distillation_plan(0, 10), batch=4)


def test_a_step_teaches_the_whole_network_and_its_maps(training: Distillation) -> None:
    training.loss(0).backward()  # type: ignore[no-untyped-call]
    silent = [name for name, p in training.named_parameters() if p.grad is None or not bool(p.grad.any())]
    assert not silent


def test_a_step_follows_from_its_number(training: Distillation) -> None:
    training.eval()
    first, again, other = (float(training.loss(step).detach()) for step in (3, 3, 4))
    assert first == again
    assert first != other


def test_relations_of_equal_cosines_cost_nothing_whatever_the_lengths_and_axes() -> None:
    features = _stages((8, 12, 16, 8))[1]
    turned = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(2)))[0]
    alike = 3 * torch.einsum("nchw,cd->ndhw", features, turned)
    generator = torch.Generator().manual_seed(0)
    assert float(relation_loss(alike, features, 50, generator)) == pytest.approx(0, abs=1e-4)


def test_relations_are_the_formula_by_loops() -> None:
    one, other = _stages((5, 7, 16, 8))[0][:1, :, :3, :3], _stages((5, 7, 16, 8), 1)[0][:1, :, :3, :3]
    found = float(relation_loss(one, other, 9, torch.Generator().manual_seed(0)))

    def cosines(features: Tensor) -> list[list[float]]:
        places = [features[0, :, y, x] for y in range(3) for x in range(3)]
        return [[float(torch.cosine_similarity(a, b, dim=0)) for b in places] for a in places]

    ours, theirs = cosines(one), cosines(other)
    divergence = 0.0
    for i in range(9):
        others = [j for j in range(9) if j != i]
        p, q = (torch.tensor([20 * table[i][j] for j in others]).softmax(0) for table in (theirs, ours))
        divergence += float((p * (p / q).log()).sum()) / 9
    squared = sum((ours[i][j] - theirs[i][j]) ** 2 for i in range(9) for j in range(9)) / 81
    assert found == pytest.approx(divergence + 5 * squared, rel=1e-3)


def test_the_joined_patches_are_those_of_the_detectors_baseline() -> None:
    stages = _stages((8, 12, 16, 8))
    joined = kinds_of_patch(stages)[3]
    vectors = torch.nn.functional.normalize(joined.flatten(2).transpose(1, 2), dim=2)
    nearest = (vectors[0] @ vectors[1:].flatten(0, 1).T).amax(1).view(1, 8, 8)
    query, support = ({"f2": stages[1][part], "f3": stages[2][part]} for part in (slice(0, 1), slice(1, None)))
    torch.testing.assert_close(nearest_patch(query, support, 32).map, combine([1 - nearest], 32))
