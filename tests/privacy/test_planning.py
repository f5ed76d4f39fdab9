"""Planning: the third figure follows from two, against another accountant; ρ is what the site's own check computes."""

import math

import pytest
from dp_accounting.dp_event import GaussianDpEvent, SelfComposedDpEvent  # type: ignore[import-untyped]
from dp_accounting.pld import PLDAccountant  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_fsad import methods
from fed_fsad.errors import ConfigError
from fed_fsad.privacy.admission import rho
from fed_fsad.privacy.planning import complete, expectation, records_for, rho_of, scalars_by_part

DELTA = 1e-5


@settings(max_examples=40, deadline=None)
@given(st.floats(0.2, 20), st.integers(1, 300))
def test_each_figure_follows_from_the_other_two(epsilon: float, releases: int) -> None:
    planned = complete(epsilon, None, releases, DELTA)
    assert planned.epsilon == pytest.approx(epsilon, rel=1e-6)
    assert planned.epsilon <= epsilon
    assert complete(None, planned.sigma, releases, DELTA) == planned
    assert complete(epsilon, planned.sigma, None, DELTA).releases == releases


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 10), st.floats(0.5, 30))
def test_the_number_of_releases_is_the_largest_that_fits(epsilon: float, sigma: float) -> None:
    try:
        found = complete(epsilon, sigma, None, DELTA).releases
    except ConfigError:
        found = 0
    assert found == 0 or complete(None, sigma, found, DELTA).epsilon <= epsilon
    assert complete(None, sigma, found + 1, DELTA).epsilon > epsilon


def test_another_accountant_finds_the_same_epsilon() -> None:
    planned = complete(4.0, None, 30, DELTA)
    accountant = PLDAccountant()
    accountant.compose(SelfComposedDpEvent(GaussianDpEvent(planned.sigma), 30))
    assert accountant.get_epsilon(DELTA) == pytest.approx(4.0, abs=0.01)


@pytest.mark.parametrize("given_", [(1.0, 1.0, 1), (1.0, None, None), (None, None, None)])
def test_two_figures_are_needed(given_: tuple[float | None, float | None, int | None]) -> None:
    with pytest.raises(ConfigError, match="a plan needs two of epsilon, sigma and rounds"):
        complete(*given_, DELTA)


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ((-1.0, 1.0, None), "epsilon is -1; give a number above 0"),
        ((None, 0.0, 3), "sigma is 0; give a number above 0"),
        ((1.0, None, 0), "rounds is 0; give a number above 0"),
        ((math.inf, None, 3), "epsilon is inf; give a number above 0"),
        ((1.0, 0.5, None), r"noise 0.5 is too little for one release at epsilon 1; take 3.73"),
    ],
)
def test_impossible_figures_are_one_sentence(given_: tuple[float | None, float | None, int | None], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        complete(*given_, DELTA)
    with pytest.raises(ConfigError, match="delta is 1; give a number between 0 and 1"):
        complete(1.0, None, 3, 1.0)


def test_rho_is_the_one_that_a_site_refuses_by_whatever_the_number_of_rounds() -> None:
    expected = rho(8.0, DELTA, 2048, 64)
    for rounds in (1, 7, 200):
        assert rho_of(complete(8.0, None, rounds, DELTA), 2048, 64) == pytest.approx(expected, rel=1e-6)
    needed = records_for(complete(8.0, None, 3, DELTA), 2048, 0.5)
    assert rho(8.0, DELTA, 2048, needed) <= 0.5 < rho(8.0, DELTA, 2048, needed - 1)


def test_expectations_get_worse_with_rho() -> None:
    assert [expectation(value) for value in (0.1, 1.0, 5.0)] == [
        "most of the gain stays", "noise costs much of the gain", "noise harms; leave it untrained",
    ]  # fmt: skip


@pytest.mark.parametrize("name", methods.names())
def test_every_scalar_that_may_travel_is_counted_once(name: str) -> None:
    built = methods.build(name, methods.settings_type(name)(), 0)
    assert sum(scalars_by_part(built).values()) == sum(tensor.numel() for tensor in built.trainable().values())
