"""The mechanism audit: what it proves stays below the claim, is not empty, and rises above it under weak noise."""

import pytest
from scipy.stats import binomtest, norm

from fed_fsad.privacy.accounting import gaussian_epsilon, noise_for
from fed_fsad.privacy.audit.mechanism import MechanismAudit, ScaledNoise, error_rate_above, mechanism_audit
from fed_fsad.privacy.noise import InsecureSeededNoise, SecureNoise

DELTA = 1e-5
CLAIMS = pytest.mark.parametrize(("claimed", "least"), [(1.0, 0.3), (2.0, 1.1), (8.0, 6.0)])


@CLAIMS
def test_the_private_step_hides_what_it_claims_and_the_audit_nearly_finds_it(claimed: float, least: float) -> None:
    found = mechanism_audit(claimed, DELTA, noise=InsecureSeededNoise(3))
    assert least < found.found <= claimed
    assert not found.refuted


@CLAIMS
def test_halved_noise_is_caught(claimed: float, least: float) -> None:
    found = mechanism_audit(claimed, DELTA, noise=ScaledNoise(InsecureSeededNoise(3), 0.5))
    assert found.refuted
    assert found.found > 1.2 * claimed


def test_a_step_that_does_not_clip_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fed_fsad.privacy.gradients._SLACK", -99.0)
    assert mechanism_audit(2.0, DELTA, noise=InsecureSeededNoise(3), canaries=200).refuted


def test_secure_noise_is_not_refuted_beyond_chance() -> None:
    assert not mechanism_audit(4.0, DELTA, noise=SecureNoise(), canaries=500, confidence=1 - 1e-9).refuted


@pytest.mark.parametrize(("errors", "trials"), [(0, 20), (3, 50), (120, 1000), (19, 20)])
def test_error_rates_are_bounded_as_another_library_does(errors: int, trials: int) -> None:
    exact = binomtest(errors, trials, alternative="less").proportion_ci(0.95, method="exact")
    assert error_rate_above(errors, trials, 0.95) == pytest.approx(exact.high)
    assert error_rate_above(trials, trials, 0.95) == 1.0


def test_the_bound_is_the_one_worked_out_by_hand() -> None:
    found: MechanismAudit = mechanism_audit(8.0, DELTA, noise=InsecureSeededNoise(3), canaries=400)
    rates = [
        binomtest(errors, 400, alternative="less").proportion_ci(0.975, method="exact").high
        for errors in (found.missed, found.false)
    ]
    mu = norm.isf(rates[0]) - norm.ppf(rates[1])
    assert found.found == pytest.approx(gaussian_epsilon(float(mu), DELTA))
    expected = norm.cdf(-0.5 / noise_for(8.0, DELTA, 1))
    assert binomtest(found.missed + found.false, 800, expected).pvalue > 1e-4, "errors of a Gaussian of width σ"
