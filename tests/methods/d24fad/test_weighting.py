"""Learn-to-weight against its formula and its limits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_fsad.methods.d24fad.weighting import LearnToWeight, Scale
from tests.methods.d24fad.helpers import array
from tests.reference import d24fad as reference


def tensors(seed: int, shots: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Query [2, 8, 3, 3] and supports [shots, 8, 3, 3]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 8, 3, 3, generator=generator), torch.randn(shots, 8, 3, 3, generator=generator)


@pytest.mark.parametrize(("scale", "divisor"), [("sqrt_chw", math.sqrt(72)), ("sqrt_c", math.sqrt(8))])
def test_weights_are_the_softmax_of_scaled_products(scale: Scale, divisor: float) -> None:
    query, supports = tensors(1, shots=3)
    layer = LearnToWeight([8], scale)
    (keys,) = layer.keys([supports])
    weights = array(layer.weights(query, keys.expand(2, 3, 8, 3, 3)))
    phi = layer.state_dict()
    kernel, bias = array(phi["phi.0.weight"])[:, :, 0, 0], array(phi["phi.0.bias"])
    expected = [reference.keys(kernel, bias, array(support)) for support in supports]
    for row in range(2):
        assert weights[row] == pytest.approx(reference.weights(array(query[row]), expected, divisor), abs=1e-5)
    mixed = array(layer(query, keys.expand(2, 3, 8, 3, 3), supports.expand(2, 3, 8, 3, 3)))
    by_hand = reference.weighted_support(array(query[1]), [array(s) for s in supports], expected, divisor)
    assert np.allclose(mixed[1], by_hand, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), shots=st.integers(1, 9))
def test_identical_supports_give_back_that_support(seed: int, shots: int) -> None:
    """Golden test 5, for any K and any query."""
    query, supports = tensors(seed, shots=1)
    layer = LearnToWeight([8], "sqrt_c")
    same = supports.expand(shots, 8, 3, 3)
    (keys,) = layer.keys([same])
    mixed = layer(query, keys.expand(2, shots, 8, 3, 3), same.expand(2, shots, 8, 3, 3))
    assert torch.allclose(mixed, supports.expand(2, 8, 3, 3), atol=1e-5)


def test_the_order_of_supports_does_not_matter() -> None:
    query, supports = tensors(5, shots=4)
    layer = LearnToWeight([8], "sqrt_chw")
    order = torch.tensor([2, 0, 3, 1])
    (keys,) = layer.keys([supports])
    straight = layer.weights(query, keys.expand(2, 4, 8, 3, 3))
    turned = layer.weights(query, keys[order].expand(2, 4, 8, 3, 3))
    assert torch.allclose(straight[:, order], turned, atol=1e-6)
    assert torch.allclose(straight.sum(dim=1), torch.ones(2))
