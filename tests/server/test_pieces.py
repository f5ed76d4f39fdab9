"""Pieces of a part are sent and averaged by themselves: hospitals with different categories train together."""

import pytest
import torch
from torch import Tensor

from fed_fsad import __version__
from fed_fsad.config import Federation
from fed_fsad.messages import Reply
from fed_fsad.methods.method import part_of, piece_of
from server.aggregate import STRATEGIES, Aggregator
from server.guard import fault
from simulations.grid import InProcessGrid
from tests.server.fakes import client_of

ROWS = ("context/brain: normal/tokens", "context/brain: glioma/tokens", "context/chest: opacity/tokens")
NAMES = (*ROWS, "text_adapters/layer1.down", "text_adapters/layer1.up")


@pytest.fixture(autouse=True)
def _task_identity() -> None:
    """Flower messages can only be made inside a run."""
    InProcessGrid(client_of({}, []), [], {})


def tensors(value: float, names: tuple[str, ...] = NAMES) -> dict[str, Tensor]:
    return {name: torch.full((2,), float(value + place)) for place, name in enumerate(NAMES) if name in names}


def reply(site: str, value: float, *without: str, examples: int = 1) -> Reply:
    names = tuple(name for name in NAMES if name not in without)
    return Reply(site, __version__, tensors={"sdmad": tensors(value, names)}, examples={"sdmad": examples})


def settings(name: str = "fedavg", weighting: str = "equal") -> Federation:
    return Federation.model_validate({"strategy": {"name": name}, "weighting": weighting})


def test_a_name_tells_its_part_and_its_piece() -> None:
    assert [part_of(name) for name in NAMES] == ["context"] * 3 + ["text_adapters"] * 2
    assert piece_of(NAMES[1]) == "context/brain: glioma"
    assert piece_of(NAMES[3]) == piece_of(NAMES[4]) == "text_adapters"


def test_every_row_is_the_mean_of_those_who_own_it_and_one_that_nobody_owns_stays() -> None:
    current = tensors(0)
    replies = [reply("a", 10, ROWS[1], ROWS[2], examples=1), reply("b", 40, ROWS[2], examples=3)]
    merged = Aggregator(settings()).combine(1, "sdmad", current, replies)
    sized = Aggregator(settings(weighting="size")).combine(1, "sdmad", current, replies)
    means = {name: (10 + 40) / 2 + place for place, name in enumerate(NAMES)} | {ROWS[1]: 40 + 1, ROWS[2]: 2}
    weighted = {name: (10 + 3 * 40) / 4 + place for place, name in enumerate(NAMES)} | {ROWS[1]: 40 + 1, ROWS[2]: 2}
    assert {name: float(value[0]) for name, value in merged.items()} == means
    assert {name: float(value[0]) for name, value in sized.items()} == weighted
    assert torch.equal(merged[ROWS[2]], current[ROWS[2]])


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - {"krum", "multikrum"}))
def test_a_row_that_skips_a_round_costs_no_strategy_its_memory(name: str) -> None:
    """The moments of a row wait while nobody sends it: two rounds of b's row are those of a run of b's row alone."""
    chosen, alone = Aggregator(settings(name)), Aggregator(settings(name))
    current = tensors(0)
    for round_, replies in enumerate(
        ([reply("a", 1), reply("b", 3)], [reply("a", 1, ROWS[1])], [reply("a", 2), reply("b", 5)]), start=1
    ):
        current = chosen.combine(round_, "sdmad", current, replies)
    row = {ROWS[1]: tensors(0)[ROWS[1]]}
    for round_, replies in ((1, [reply("a", 1), reply("b", 3)]), (3, [reply("a", 2), reply("b", 5)])):
        own = [
            Reply(one.site, __version__, tensors={"sdmad": {ROWS[1]: one.tensors["sdmad"][ROWS[1]]}}) for one in replies
        ]
        row = alone.combine(round_, "sdmad", row, own)
    assert torch.equal(current[ROWS[1]], row[ROWS[1]])
    restored = Aggregator(settings(name))
    restored.restore(chosen.state())
    assert set(restored.state()) == set(chosen.state())


def test_a_reply_may_leave_out_rows_but_not_half_a_part() -> None:
    current = {"sdmad": tensors(0)}
    assert fault(reply("a", 1, ROWS[1], ROWS[2]), current) is None
    assert fault(reply("a", 1, NAMES[4]), current) == "sdmad: tensor text_adapters/layer1.up is missing"
