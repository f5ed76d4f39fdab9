"""Full and sampled batches in one account: two accountants agree, the larger is charged, a plan fits its budget."""

import json
import math
from pathlib import Path

import pytest
from dp_accounting.dp_event import (  # type: ignore[import-untyped]
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    PoissonSampledDpEvent,
    SelfComposedDpEvent,
)
from dp_accounting.pld import PLDAccountant  # type: ignore[import-untyped]

from fed_fsad.errors import BudgetSpent, LedgerDamaged
from fed_fsad.privacy.account import read_account
from fed_fsad.privacy.accounting import gaussian_epsilon, noise_for
from fed_fsad.privacy.composition import Releases, by_pld, by_prv, noise_within, spent
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.lines import Request
from fed_fsad.privacy.planning import complete

DELTA = 1e-5
OLD = """{"kind":"header","version":1,"unit":"image","delta":1e-05,"adjacency":"remove one record",\
"sampling":"full batch"}
{"kind":"charge","request":{"run":"old","round":1,"method":"sdmad","key":"k"},"release":"r","releases":2,"sigma":4.0,\
"mu_squared":0.125,"epsilon_after":1.3501,"secure":true,"time":"2026-01-01T00:00:00Z"}
"""
"""A ledger from before charges had a rate; its ε is put in by the test."""


def sampled(*own: Releases) -> DpEvent:
    """The same releases in the words of another library."""
    events = [
        SelfComposedDpEvent(PoissonSampledDpEvent(one.rate, GaussianDpEvent(one.sigma)), one.count) for one in own
    ]
    return ComposedDpEvent(events)


@pytest.mark.parametrize(
    ("groups", "mu"),
    [
        (((2.0, 0.1, 6),), 0.3),
        (((1.0, 0.25, 10),), 0.0),
        (((4.0, 0.9, 20),), 0.0),
        (((1.0, 0.05, 300),), 0.0),
        (((2.0, 0.5, 4), (3.0, 0.2, 5)), 0.5),
    ],
)
def test_both_accountants_agree(groups: tuple[tuple[float, float, int], ...], mu: float) -> None:
    one, other = by_pld(groups, mu, DELTA), by_prv(groups, mu, DELTA)
    assert one == pytest.approx(other, rel=0.01, abs=0.01)
    full = [Releases(1, 1 / mu)] if mu else []
    account = spent([*full, *(Releases(count, sigma, rate) for sigma, rate, count in groups)], DELTA)
    assert account == pytest.approx(max(one, other), rel=1e-9)


def test_full_and_sampled_batches_compose_as_another_library_says() -> None:
    own = [Releases(3, 4.0), Releases(8, 2.0, 0.2), Releases(2, 6.0), Releases(4, 3.0, 0.5)]
    accountant = PLDAccountant()
    accountant.compose(sampled(*own))
    expected = accountant.get_epsilon(DELTA)
    assert expected - 1e-3 <= spent(own, DELTA) <= expected + 0.01
    assert spent(own, DELTA) == spent(own[::-1], DELTA)


def test_full_batches_alone_keep_the_closed_form() -> None:
    own = [Releases(3, 4.0), Releases(2, 6.0)]
    assert spent(own, DELTA) == pytest.approx(gaussian_epsilon(math.sqrt(3 / 16 + 2 / 36), DELTA), rel=1e-12)
    assert spent([], DELTA) == 0


def test_sampling_is_never_charged_more_than_full_batches_and_no_accountant_is_asked_beyond_its_grid() -> None:
    assert spent([Releases(5, 2.0, 0.999)], DELTA) <= spent([Releases(5, 2.0)], DELTA)
    assert spent([Releases(50, 0.02, 0.5)], DELTA) == spent([Releases(50, 0.02)], DELTA)
    assert spent([Releases(300, 1.0, 0.05)], DELTA) < 10 < spent([Releases(300, 1.0)], DELTA)


@pytest.mark.parametrize("rates", [(0.2,), (0.5, 1.0)])
@pytest.mark.parametrize("others", [(), (Releases(3, 4.0),)])
def test_planned_noise_fits_the_budget_and_hardly_less_would(
    rates: tuple[float, ...], others: tuple[Releases, ...]
) -> None:
    sigma = noise_within(3.0, DELTA, others, 10, rates)
    assert sigma is not None

    def cost(noise: float) -> float:
        return spent([*others, *(Releases(10, noise, rate) for rate in rates)], DELTA)

    assert cost(sigma) <= 3.0 < cost(0.99 * sigma)
    assert sigma < math.sqrt(10 * len(rates)) / math.sqrt(noise_for(3.0, DELTA, 1) ** -2 - 3 / 16)


def test_nothing_is_planned_out_of_a_spent_budget() -> None:
    assert noise_within(1.0, DELTA, [Releases(1, 1.0)], 1) is None
    assert noise_within(1.0, DELTA, [Releases(9, 1.0, 0.5)], 1, (0.5,)) is None


def test_a_plan_of_sampled_batches_is_completed_both_ways() -> None:
    planned = complete(4.0, None, 20, DELTA, 0.25)
    assert 3.9 < planned.epsilon <= 4.0
    assert planned.sigma < complete(4.0, None, 20, DELTA).sigma
    assert complete(4.0, planned.sigma, None, DELTA, 0.25).releases == 20


def pay(ledger: Ledger, round_: int, sigma: float, rate: float, run: str = "run") -> None:
    request = Request(run=run, round=round_, method="sdmad", key="k")
    ledger.charge(request, f"{run}{round_}", releases=2, sigma=sigma, rate=rate, secure=True)


def begin(path: Path, epsilon: float = 8.0) -> Ledger:
    return Ledger.open(path, unit="image", delta=DELTA, epsilon=epsilon)


def test_an_old_ledger_is_read_and_goes_on_with_sampled_batches(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    old = gaussian_epsilon(math.sqrt(0.125), DELTA)
    path.write_text(OLD.replace("1.3501", repr(old)), encoding="utf-8")
    with begin(path) as ledger:
        assert ledger.epsilon == pytest.approx(old, rel=1e-12)
        pay(ledger, 1, 2.0, 0.3)
        after = ledger.epsilon
        assert after == spent([Releases(2, 4.0), Releases(2, 2.0, 0.3)], DELTA) > old
    with begin(path) as ledger:
        assert ledger.epsilon == after
    account = read_account(tmp_path)
    assert [share.epsilon for share in account.runs] == [pytest.approx(old), spent([Releases(2, 2.0, 0.3)], DELTA)]


def test_a_sampled_charge_that_is_missing_or_cheapened_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with begin(path) as ledger:
        for round_ in (1, 2, 3):
            pay(ledger, round_, 2.0, 0.3)
    header, first, second, third = path.read_bytes().splitlines(keepends=True)
    for damaged in ([header, first, third], [header, second, third], [header, first, b"", third]):
        path.write_bytes(b"".join(damaged))
        with pytest.raises(LedgerDamaged):
            begin(path)
    cheaper = json.loads(third) | {"sigma": 9.0}
    path.write_bytes(b"".join([header, first, second, json.dumps(cheaper).encode() + b"\n"]))
    with pytest.raises(LedgerDamaged):
        begin(path)


def test_planned_sampled_rounds_spend_the_budget_and_the_next_is_refused(tmp_path: Path) -> None:
    with begin(tmp_path / "ledger.jsonl", 2.0) as ledger:
        sigma = ledger.noise_for("run", 6, (0.4,))
        for round_ in range(3):
            pay(ledger, round_, sigma, 0.4)
            assert ledger.noise_for("run", 6, (0.4,)) == sigma
        assert 1.95 < ledger.epsilon <= 2.0
        with pytest.raises(BudgetSpent):
            ledger.require(2, sigma, 0.4)
        assert not ledger.would_exceed(2, sigma, 1e-6)
