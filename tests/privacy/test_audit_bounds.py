"""What guesses prove, against other libraries, formulas written slowly, and mechanisms whose privacy is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_auc_score

from fed_fsad.privacy.audit.bounds import (
    Trial,
    auc_between,
    auc_limit,
    best_one_run,
    one_run_epsilon,
    one_run_p_value,
    rate_between,
    success_limit,
)


@pytest.mark.parametrize(("guesses", "right"), [(20, 20), (100, 81), (500, 250), (500, 452)])
def test_without_delta_one_run_is_clopper_and_pearson(guesses: int, right: int) -> None:
    """ε-private guesses are right like coins of probability e^ε / (1 + e^ε): ε is the logit of that rate's limit."""
    rate = binomtest(right, guesses, alternative="greater").proportion_ci(0.95, method="exact").low
    expected = max(0.0, math.log(rate / (1 - rate)))
    assert one_run_epsilon(guesses, guesses, right, delta=0.0) == pytest.approx(expected, abs=1e-6)


def slow_p_value(records: int, guesses: int, right: int, epsilon: float, delta: float) -> float:
    """f(v) + 2 m δ · max over i of (f(v - i) - f(v)) / i, f(v) = P[Binomial(r, p) >= v], term by term."""
    p = math.exp(epsilon) / (1 + math.exp(epsilon))

    def at_least(v: int) -> float:
        return sum(math.comb(guesses, k) * p**k * (1 - p) ** (guesses - k) for k in range(max(v, 0), guesses + 1))

    worst = max(((at_least(right - i) - at_least(right)) / i for i in range(1, records + 1)), default=0.0)
    return min(1.0, at_least(right) + 2 * records * delta * max(worst, 0.0))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_one_run_equals_the_theorem_written_slowly(data: st.DataObject) -> None:
    records = data.draw(st.integers(2, 40))
    guesses = data.draw(st.integers(1, records))
    right = data.draw(st.integers(0, guesses))
    epsilon, delta = data.draw(st.floats(0, 5)), data.draw(st.sampled_from([0.0, 1e-5, 1e-3]))
    expected = slow_p_value(records, guesses, right, epsilon, delta)
    assert one_run_p_value(records, guesses, right, epsilon, delta) == pytest.approx(expected, abs=1e-9)


def test_one_run_never_claims_more_with_a_larger_delta_or_fewer_right() -> None:
    by_delta = [one_run_epsilon(500, 200, 190, delta) for delta in (0.0, 1e-5, 1e-4)]
    by_right = [one_run_epsilon(500, 200, right, 1e-5) for right in (200, 190, 150, 100)]
    assert by_delta == sorted(by_delta, reverse=True)
    assert by_right == sorted(by_right, reverse=True)
    assert by_delta[0] > by_delta[-1]
    assert by_right[-1] == 0


def test_randomised_response_is_refuted_as_seldom_as_promised() -> None:
    """ε = 1 exactly: the bound may exceed it in 5 % of the runs, over all numbers of guesses that are tried."""
    stream = np.random.default_rng(0)
    truthful = math.e / (1 + math.e)
    wrong, found = 0, []
    for _ in range(80):
        coins = stream.random(400) < 0.5
        told = np.where(stream.random(400) < truthful, coins, ~coins)
        found.append(best_one_run(coins, [told + 0.01 * stream.random(400)], 0.0)[0])
        wrong += found[-1] > 1
    assert wrong <= 80 * 0.05 + 4
    assert float(np.median(found)) > 0.6, "and it is not vacuous"


@pytest.mark.parametrize("mu", [0.1, 0.5, 1.67, 4.0])
def test_auc_limit_is_the_area_under_the_trade_off_curve(mu: float) -> None:
    area = quad(lambda false: float(norm.cdf(norm.ppf(false) + mu)), 0, 1)[0]
    assert auc_limit(mu) == pytest.approx(area, abs=1e-6)
    assert auc_limit(math.inf) == 1


def test_success_limit_is_reached_by_a_threshold_between_two_gaussians() -> None:
    stream = np.random.default_rng(1)
    mu, threshold = 1.3, 2.0
    without = float((stream.normal(0, 1, 400_000) > threshold).mean())
    with_it = float((stream.normal(mu, 1, 400_000) > threshold).mean())
    assert success_limit(mu, without) == pytest.approx(with_it, abs=5e-3)
    assert success_limit(math.inf, 0.01) == 1
    assert [success_limit(mu, rate) for rate in (0.0, 1.0)] == [0.0, 1.0]


@pytest.mark.parametrize(("hits", "trials"), [(0, 5), (5, 5), (3, 17)])
def test_a_rate_lies_where_scipy_says(hits: int, trials: int) -> None:
    expected = binomtest(hits, trials).proportion_ci(0.95, method="exact")
    assert rate_between(hits, trials) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_auc_is_that_of_scikit_learn_with_ties() -> None:
    stream = np.random.default_rng(2)
    included = stream.random(80) < 0.4
    evidence = np.round(stream.normal(size=80) + included, 1)
    split = [(included[:30], evidence[:30]), (included[30:], evidence[30:])]
    assert auc_between(split, 0)[0] == pytest.approx(roc_auc_score(included, evidence))


def test_an_interval_holds_the_truth_and_narrows_with_more_trials() -> None:
    stream = np.random.default_rng(3)

    def trials(count: int) -> list[Trial]:
        coins = [stream.random(30) < 0.5 for _ in range(count)]
        return [(row, stream.normal(size=30) + 1.0 * row) for row in coins]

    few, many = auc_between(trials(8), 0), auc_between(trials(80), 0)
    truth = float(norm.cdf(1 / math.sqrt(2)))
    for found in (few, many):
        assert found[1] <= truth <= found[2]
    assert many[2] - many[1] < few[2] - few[1]
    same = trials(8)
    assert auc_between(same, 5) == auc_between(same, 5)
