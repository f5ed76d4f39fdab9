"""Random streams and reproducible arithmetic: names decide every draw, threads decide no bit."""

from collections.abc import Iterator

import pytest
import torch

from fed_fsad.seeds import derive, numpy_stream, reproducible, torch_stream


@pytest.fixture(autouse=True)
def _leave_torch_as_it_was() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_a_stream_is_named_by_everything_in_its_name_and_by_nothing_else() -> None:
    names = [(0, "a", "b"), (0, "a", "b", 1), (0, "b", "a"), (1, "a", "b"), (0, "ab")]
    seeds = [derive(*name) for name in names]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert derive(0, "a", "b") == seeds[0]


def test_streams_repeat_and_do_not_disturb_each_other() -> None:
    first = numpy_stream(3, "x").normal(size=4)
    numpy_stream(3, "y").normal(size=100)
    assert (numpy_stream(3, "x").normal(size=4) == first).all()
    noise = torch.randn(4, generator=torch_stream(3, "x"))
    assert torch.equal(torch.randn(4, generator=torch_stream(3, "x")), noise)


def gathered_gradient() -> torch.Tensor:
    """The gradient of many large rows gathered from a few, as supports are in D²4FAD."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(8, 40_000, generator=generator, requires_grad=True)
    weights = torch.randn(64, 40_000, generator=generator) * 1e3
    index = torch.randint(0, 8, (64,), generator=generator)
    (gradient,) = torch.autograd.grad((rows[index] * weights).sum(), rows)
    return gradient


def test_gradients_of_gathered_supports_are_equal_to_the_last_bit_with_several_threads() -> None:
    reproducible(4)
    assert torch.get_num_threads() == 4
    first = gathered_gradient()
    assert all(torch.equal(gathered_gradient(), first) for _ in range(20))
