"""Aggregation: Flower's strategies give the textbook result, in the tensors' own dtype, whatever the order."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from fed_fsad import __version__
from fed_fsad.config import Federation
from fed_fsad.errors import ConfigError
from fed_fsad.messages import Reply
from server.aggregate import STRATEGIES, Aggregator, make_strategy
from simulations.grid import InProcessGrid
from tests.server.fakes import client_of

NAMES = ("affine/a", "affine/b", "kernels/c")


@pytest.fixture(autouse=True)
def _task_identity() -> None:
    """Flower messages can only be made inside a run."""
    InProcessGrid(client_of({}, []), [], {})


def tensors(value: float, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(int(value * 1000))
    shapes = ((3,), (2, 2), ())
    return {n: torch.randn(s, generator=generator, dtype=dtype) + value for n, s in zip(NAMES, shapes, strict=True)}


def reply(site: str, own: dict[str, Tensor], examples: int | None = 10) -> Reply:
    return Reply(site, __version__, tensors={"m": own}, examples={} if examples is None else {"m": examples})


def settings(name: str = "fedavg", weighting: str = "equal", **options: int | float) -> Federation:
    return Federation.model_validate({"strategy": {"name": name, "options": options}, "weighting": weighting})


def stacked(replies: list[Reply], name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.stack([one.tensors["m"][name].double().numpy() for one in replies])


REPLIES = [reply("a", tensors(0.1), 10), reply("b", tensors(0.2), 30), reply("c", tensors(0.7), 60)]
CURRENT = tensors(0.0)


def test_equal_and_size_weights_are_weighted_means() -> None:
    equal = Aggregator(settings()).combine(1, "m", CURRENT, REPLIES)
    sized = Aggregator(settings(weighting="size")).combine(1, "m", CURRENT, REPLIES)
    for name in NAMES:
        values = stacked(REPLIES, name)
        np.testing.assert_allclose(equal[name], values.mean(0), rtol=1e-6)
        np.testing.assert_allclose(sized[name], np.average(values, axis=0, weights=[10, 30, 60]), rtol=1e-6)


def test_a_site_that_tells_no_count_weighs_like_the_mean_of_the_others() -> None:
    silent = [*REPLIES[:2], reply("c", tensors(0.7), None)]
    got = Aggregator(settings(weighting="size")).combine(1, "m", CURRENT, silent)
    expected = np.average(stacked(REPLIES, "affine/a"), axis=0, weights=[10, 30, 20])
    np.testing.assert_allclose(got["affine/a"], expected, rtol=1e-6)


def test_median_and_trimmed_mean() -> None:
    median = Aggregator(settings("fedmedian")).combine(1, "m", CURRENT, REPLIES)
    trimmed = Aggregator(settings("fedtrimmedavg", beta=0.34)).combine(1, "m", CURRENT, REPLIES)
    for name in NAMES:
        np.testing.assert_allclose(median[name], np.median(stacked(REPLIES, name), axis=0), rtol=1e-6)
        np.testing.assert_allclose(trimmed[name], np.median(stacked(REPLIES, name), axis=0), rtol=1e-6)


def test_multikrum_leaves_out_the_outlier() -> None:
    poisoned = [*REPLIES, reply("d", {name: value + 50 for name, value in tensors(0.3).items()})]
    options = {"num_malicious_nodes": 1, "num_nodes_to_select": 2}
    got = Aggregator(settings("multikrum", **options)).combine(1, "m", CURRENT, poisoned)
    assert all(float(value.abs().max()) < 5 for value in got.values())


def test_krum_takes_the_update_with_the_nearest_neighbours_part_by_part() -> None:
    replies = [*REPLIES, reply("d", tensors(0.31)), reply("e", {n: v + 50 for n, v in tensors(0.3).items()})]
    got = Aggregator(settings("krum", num_malicious_nodes=1)).combine(1, "m", CURRENT, replies)
    for part in ("affine", "kernels"):
        names = [name for name in NAMES if name.startswith(part)]
        flat = np.array([np.concatenate([r.tensors["m"][n].numpy().ravel() for n in names]) for r in replies])
        squared = ((flat[:, None] - flat[None]) ** 2).sum(-1)
        scores = [np.sort(np.delete(row, i))[: len(replies) - 1 - 2].sum() for i, row in enumerate(squared)]
        best = replies[int(np.argmin(scores))].tensors["m"]
        assert all(torch.equal(got[name], best[name]) for name in names)


def test_fedavgm_and_fedadam_follow_their_formulas_over_two_rounds() -> None:
    for name in ("fedavgm", "fedadam"):
        options = (
            {"server_momentum": 0.5, "server_learning_rate": 1.0} if name == "fedavgm" else {"eta": 0.1, "tau": 1e-3}
        )
        aggregator = Aggregator(settings(name, **options))
        value, first, second = CURRENT["affine/a"].double().numpy(), np.zeros(3), np.zeros(3)
        current = CURRENT
        for round_ in (1, 2):
            current = aggregator.combine(round_, "m", current, REPLIES)
            delta = stacked(REPLIES, "affine/a").mean(0) - value
            if name == "fedavgm":
                first = 0.5 * first + delta
                value = value + first
            else:
                first = 0.9 * first + 0.1 * delta
                second = 0.99 * second + 0.01 * delta**2
                norm = np.sqrt(1 - 0.99 ** (round_ + 1)) / (1 - 0.9 ** (round_ + 1))
                value = value + 0.1 * norm * first / (np.sqrt(second) + 1e-3)
            np.testing.assert_allclose(current["affine/a"], value, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_names_shapes_and_dtypes_are_kept(name: str, dtype: torch.dtype) -> None:
    current = tensors(0.0, dtype)
    replies = [reply(site, tensors(0.1 * i, dtype)) for i, site in enumerate("abcd")]
    options = {"num_malicious_nodes": 1, "num_nodes_to_select": 2} if name == "multikrum" else {}
    got = Aggregator(settings(name, **options)).combine(1, "m", current, replies)
    assert {n: (v.shape, v.dtype) for n, v in got.items()} == {n: (v.shape, v.dtype) for n, v in current.items()}
    assert list(got) == list(current)


@pytest.mark.parametrize("name", ["fedavg", "fedadam"])
def test_the_order_of_replies_changes_no_bit(name: str) -> None:
    results = [
        Aggregator(settings(name)).combine(1, "m", CURRENT, list(order)) for order in itertools.permutations(REPLIES)
    ]
    assert all(torch.equal(result[n], results[0][n]) for result in results for n in NAMES)


def test_a_part_moves_only_with_the_sites_that_sent_it() -> None:
    light = reply("a", {name: value for name, value in tensors(0.1).items() if name.startswith("affine")})
    got = Aggregator(settings()).combine(1, "m", CURRENT, [light, REPLIES[1]])
    np.testing.assert_allclose(got["affine/a"], stacked([light, REPLIES[1]], "affine/a").mean(0), rtol=1e-6)
    np.testing.assert_allclose(got["kernels/c"], REPLIES[1].tensors["m"]["kernels/c"], rtol=1e-6)
    alone = Aggregator(settings()).combine(1, "m", CURRENT, [light])
    assert torch.equal(alone["kernels/c"], CURRENT["kernels/c"])


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadam", "fedyogi"])
def test_moments_restored_from_a_checkpoint_continue_bit_for_bit(name: str) -> None:
    whole, first = Aggregator(settings(name)), Aggregator(settings(name))
    one = whole.combine(1, "m", CURRENT, REPLIES)
    first.combine(1, "m", CURRENT, REPLIES)
    second = Aggregator(settings(name))
    second.restore({key: value.clone() for key, value in first.state().items()})
    later = [reply("a", tensors(0.4)), reply("b", tensors(0.9))]
    expected, got = whole.combine(2, "m", one, later), second.combine(2, "m", one, later)
    assert all(torch.equal(expected[n], got[n]) for n in NAMES)


def test_the_shared_tensors_are_not_changed_in_place() -> None:
    before = {name: value.clone() for name, value in CURRENT.items()}
    Aggregator(settings("fedadam")).combine(1, "m", CURRENT, REPLIES)
    assert all(torch.equal(before[name], CURRENT[name]) for name in NAMES)


def test_an_unknown_strategy_option_is_named() -> None:
    with pytest.raises(ConfigError, match=r"fedadam has no option 'etta'; it has .*eta"):
        make_strategy(settings("fedadam", etta=1).strategy)


def test_options_that_flower_would_sample_or_call_by_are_not_offered() -> None:
    for option in ("fraction_train", "min_train_nodes", "train_metrics_aggr_fn"):
        with pytest.raises(ConfigError, match=f"fedavg has no option '{option}'; it takes none"):
            make_strategy(settings("fedavg", **{option: 1}).strategy)
