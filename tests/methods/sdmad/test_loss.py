import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_fsad.methods.sdmad.loss import inter_loss, sign_loss
from tests.reference.sdmad import stage_one

IMAGE = st.integers(1, 5).flatmap(
    lambda m: st.tuples(
        st.lists(st.floats(-8, 8, width=32), min_size=m + 1, max_size=m + 1),
        st.lists(st.booleans(), min_size=m, max_size=m),
    )
)


@settings(deadline=None, max_examples=60)
@given(IMAGE, st.floats(0, 3))
def test_the_loss_is_the_formula(image: tuple[list[float], list[bool]], weight: float) -> None:
    g, present = image
    loss = sign_loss(torch.tensor([g], dtype=torch.float64), torch.tensor([present]), weight)
    assert loss.item() == pytest.approx(stage_one(g, present, weight), rel=1e-9, abs=1e-9)


def test_rows_of_a_batch_are_independent_images() -> None:
    g = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    present = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]]).bool()
    together = sign_loss(g, present, 0.7)
    assert together.tolist() == pytest.approx(
        [stage_one(g[i].tolist(), present[i].tolist(), 0.7) for i in range(4)], rel=1e-12
    )


def test_co_present_categories_never_repel_each_other() -> None:
    g = torch.tensor([[0.1, 2.0, -1.0, 0.5]], requires_grad=True)
    present = torch.tensor([[True, True, False]])
    # category 2 alone against normal and category 3: the pull on it must not depend on category 1
    gradient = torch.autograd.grad(inter_loss(g, present).sum(), g)[0][0]
    moved = (g + torch.tensor([[0.0, 5.0, 0.0, 0.0]])).detach().requires_grad_()
    after = torch.autograd.grad(inter_loss(moved, present).sum(), moved)[0][0]
    assert gradient[2] == after[2] < 0
    assert gradient[1] < 0 < gradient[3]


def test_nothing_absent_gives_zero_loss_and_zero_gradient() -> None:
    # a task with no trained category: normal is present, nothing is absent
    g = torch.tensor([[1.5]], requires_grad=True)
    loss = sign_loss(g, torch.zeros(1, 0, dtype=torch.bool), 1.0)
    (gradient,) = torch.autograd.grad(loss.sum(), g)
    assert loss.item() == 0
    assert gradient.item() == 0


def test_logits_of_a_trained_temperature_stay_finite() -> None:
    g = torch.tensor([[-100.0, 100.0, -100.0]], requires_grad=True)
    loss = sign_loss(g, torch.tensor([[False, True]]), 1.0)
    (gradient,) = torch.autograd.grad(loss.sum(), g)
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
