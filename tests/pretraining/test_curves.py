"""Curves that the docs show are those of the cards."""

from pathlib import Path

import pytest

from fed_fsad.assets import asset
from pretraining.curves import CARDS, HEADING, ROWS, curves, thinned

PAGE = Path(__file__).parents[2] / "docs/weights.md"


@pytest.mark.parametrize("name", CARDS)
def test_a_thinned_curve_keeps_the_cards_own_points_and_the_last_one(name: str) -> None:
    card = asset(f"{name}/card.md")
    whole = card.read_text().split(HEADING)[1].strip().splitlines()[2:]
    shown = list(thinned(card))[2:]
    assert set(shown) <= set(whole)
    assert shown[-1] == whole[-1]
    assert 1 < len(shown) <= ROWS


def test_the_page_shows_what_the_command_prints() -> None:
    assert curves() in PAGE.read_text(encoding="utf-8")
