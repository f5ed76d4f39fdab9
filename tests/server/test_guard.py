"""The guard's passes over all of a reply at once: as strict as one tensor at a time, and lengths to the last digits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fed_fsad.messages import Reply
from server.guard import outsized, tensor_fault, update_norm

KINDS = {"a/half": torch.float16, "a/x": torch.float32, "b/count": torch.int64, "b/wide": torch.float64}


def tensors(seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: (9 * torch.randn(2, 3, generator=draw)).to(kind) for name, kind in KINDS.items()}


@given(st.sampled_from(["a/half", "a/x", "b/wide"]), st.integers(0, 5), st.sampled_from(["nan", "inf", "-inf"]))
def test_one_number_that_is_none_is_found_wherever_it_stands(name: str, place: int, value: str) -> None:
    sent = tensors(1)
    assert tensor_fault(sent, tensors()) is None
    sent[name].view(-1)[place] = float(value)
    assert tensor_fault(sent, tensors()) == f"{name} holds NaN or infinite values"


def test_the_largest_numbers_are_numbers() -> None:
    sent = {
        name: torch.full_like(own, torch.finfo(own.dtype).max) for name, own in tensors().items() if "b" not in name
    }
    assert tensor_fault(sent, tensors()) is None


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({"a/x": tensors()["a/x"]}, "tensor a/half is missing"),
        ({**tensors(), "c/x": torch.zeros(1)}, "unknown tensor c/x"),
        ({**tensors(), "a/x": torch.zeros(3, 2)}, "a/x has shape (3, 2), not (2, 3)"),
        ({**tensors(), "a/x": torch.zeros(2, 3).double()}, "a/x is torch.float64, not torch.float32"),
    ],
    ids=["missing", "unknown", "shape", "kind"],
)
def test_pieces_are_whole_and_of_the_right_kind(sent: dict[str, Tensor], said: str) -> None:
    assert tensor_fault(sent, tensors()) == said
    assert tensor_fault({name: own for name, own in tensors(1).items() if name.startswith("a/")}, tensors()) is None


def slow_norm(sent: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    pairs = [
        (float(x), float(y)) for name in sent for x, y in zip(sent[name].ravel(), start[name].ravel(), strict=True)
    ]
    return math.sqrt(math.fsum((x - y) ** 2 for x, y in pairs))


def test_lengths_are_those_of_a_slow_sum_whatever_each_site_leaves_out_and_in_whatever_order() -> None:
    start = tensors()
    updates = [
        tensors(1), {name: tensors(2)[name] for name in ("a/x", "a/half")}, dict(reversed(tensors(3).items())), {},
        tensors(4), {name: own + 10**6 for name, own in tensors(5).items() if name.startswith("b")},
    ]  # fmt: skip
    norms = [slow_norm(sent, start) for sent in updates]
    assert [update_norm(sent, start) for sent in updates] == pytest.approx(norms, rel=1e-12)
    replies = [Reply(f"s{place}", "1", tensors={"m": sent}) for place, sent in enumerate(updates)]
    found = outsized(replies, {"m": start}, 10.0)
    limit = 10 * sorted(norms)[2] / 2 + 10 * sorted(norms)[3] / 2
    assert found == {"s5": f"m: its update is {norms[5]:.3g} long, 10 times the cohort's median is {limit:.3g}"}
