"""The accountant against published figures, integration, and two accountants of other people."""

import math

import mpmath  # type: ignore[import-untyped]
import pytest
from dp_accounting.dp_event import (  # type: ignore[import-untyped]
    GaussianDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.pld import PLDAccountant  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant
from scipy.integrate import quad
from scipy.stats import norm

from fed_fsad.privacy.accounting import gaussian_delta, gaussian_epsilon, mu_squared, noise_for


@pytest.mark.parametrize(("epsilon", "sigma"), [(1, 3.73), (2, 1.99), (4, 1.08), (8, 0.60)])
def test_noise_of_one_release_is_the_published_figure(epsilon: float, sigma: float) -> None:
    assert noise_for(epsilon, 1e-5, 1) == pytest.approx(sigma, abs=0.005)


@pytest.mark.parametrize(("mu", "epsilon"), [(0.1, 0.0), (0.5, 1.0), (1.0, 2.0), (3.0, 0.5), (2.0, 8.0)])
def test_delta_is_the_hockey_stick_divergence(mu: float, epsilon: float) -> None:
    def excess(x: float) -> float:
        return float(norm.pdf(x - mu) - math.exp(epsilon) * norm.pdf(x))

    start = epsilon / mu + mu / 2
    expected, _ = quad(excess, start, start + 40, epsabs=1e-14, epsrel=1e-11, limit=400)
    assert gaussian_delta(mu, epsilon) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("mu", [1e-6, 1e-3, 0.3, 5.0, 60.0, 1e3])
@pytest.mark.parametrize("tail", [0.0, 1.0, 6.0, 20.0])
def test_delta_is_right_in_the_tails(mu: float, tail: float) -> None:
    epsilon = max(0.0, mu * tail + mu**2 / 2)
    with mpmath.workdps(1000):
        m, e = mpmath.mpf(mu), mpmath.mpf(epsilon)
        expected = mpmath.ncdf(m / 2 - e / m) - mpmath.exp(e) * mpmath.ncdf(-m / 2 - e / m)
        ratio = float(gaussian_delta(mu, epsilon) / expected)
    assert ratio == pytest.approx(1, rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.floats(1e-3, 30), st.floats(1e-12, 0.3))
def test_epsilon_is_the_smallest_that_holds(mu: float, delta: float) -> None:
    epsilon = gaussian_epsilon(mu, delta)
    assert gaussian_delta(mu, epsilon) <= delta * (1 + 1e-9)
    assert epsilon == 0 or gaussian_delta(mu, epsilon * (1 - 1e-6) - 1e-12) > delta


@settings(max_examples=40, deadline=None)
@given(st.floats(0.05, 20), st.floats(1e-9, 1e-2), st.integers(1, 500))
def test_releases_added_one_by_one_never_exceed_the_planned_budget(epsilon: float, delta: float, releases: int) -> None:
    sigma = noise_for(epsilon, delta, releases)
    total = 0.0
    for _ in range(releases):
        total += mu_squared(1, sigma)
    spent = gaussian_epsilon(math.sqrt(total), delta)
    assert epsilon * (1 - 1e-6) < spent <= epsilon


def test_nothing_released_costs_nothing() -> None:
    assert gaussian_epsilon(0.0, 1e-5) == 0
    assert gaussian_delta(0.0, 0.0) == 0


@pytest.mark.parametrize(("sigma", "steps"), [(2.0, 1), (6.0, 10), (10.0, 100)])
def test_other_accountants_agree(sigma: float, steps: int) -> None:
    delta = 1e-5
    ours = gaussian_epsilon(math.sqrt(mu_squared(steps, sigma)), delta)
    pld = PLDAccountant()
    pld.compose(SelfComposedDpEvent(PoissonSampledDpEvent(1.0, GaussianDpEvent(sigma)), steps))
    assert ours == pytest.approx(pld.get_epsilon(delta), abs=0.01)
    prv = PRVAccountant()
    prv.history = [(sigma, 1.0, steps)]
    assert ours == pytest.approx(prv.get_epsilon(delta, eps_error=0.01), abs=0.02)
