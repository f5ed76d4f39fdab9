"""Reading a ledger: run by run, while it is in use, and without changing a byte."""

import math
import re
from pathlib import Path

import pytest

from fed_fsad.errors import DataError, LedgerDamaged
from fed_fsad.privacy.account import read_account
from fed_fsad.privacy.accounting import gaussian_epsilon
from fed_fsad.privacy.guarantees import NONE, NOTHING_LEFT, guarantees
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.lines import Request
from fed_fsad.privacy.planning import Budget, rho_of

DELTA = 1e-6


def begin(folder: Path) -> Ledger:
    return Ledger.open(folder / "ledger.jsonl", unit="patient", delta=DELTA, epsilon=8.0)


def pay(ledger: Ledger, run: str, round_: int, *, secure: bool = True) -> None:
    request = Request(run=run, round=round_, method="sdmad", key="k")
    ledger.charge(request, f"{run}{round_}", releases=2, sigma=4.0, secure=secure)


def test_runs_are_told_apart_and_add_up(tmp_path: Path) -> None:
    with begin(tmp_path) as ledger:
        for run, round_ in [("one", 1), ("two", 1), ("one", 2), ("two", 2), ("one", 3)]:
            pay(ledger, run, round_)
        before = (tmp_path / "ledger.jsonl").read_bytes()
        account = read_account(tmp_path)
    assert (account.unit, account.delta, account.insecure) == ("patient", DELTA, 0)
    assert [(share.run, share.rounds, share.releases) for share in account.runs] == [("one", 3, 6), ("two", 2, 4)]
    assert [share.epsilon for share in account.runs] == [
        pytest.approx(gaussian_epsilon(math.sqrt(releases / 16), DELTA)) for releases in (6, 4)
    ]
    assert account.epsilon == pytest.approx(gaussian_epsilon(math.sqrt(10 / 16), DELTA))
    assert (tmp_path / "ledger.jsonl").read_bytes() == before


def test_noise_is_that_of_the_plan_and_falls_with_every_release(tmp_path: Path) -> None:
    """Of full batches, and of sampled ones: as ρ is planned, for one scalar."""
    records = tuple((f"image{i}",) for i in range(20))
    with begin(tmp_path) as ledger:
        for method, rate in (("sdmad", 1.0), ("d24fad", 0.25), ("unused", 1.0)):
            ledger.freeze(method, records)
            for round_ in range(3 if method != "unused" else 0):
                request = Request(run="run", round=round_, method=method, key="k")
                ledger.charge(request, f"{method}{round_}", releases=2, sigma=12.0, secure=True, rate=rate)
    noise = read_account(tmp_path).noise
    for method, rate in (("sdmad", 1.0), ("d24fad", 0.25)):
        assert noise[method] == pytest.approx(rho_of(Budget(1.0, DELTA, 12.0, 6, rate), 1, 20))
    assert noise["unused"] == math.inf


def test_seeded_noise_is_counted(tmp_path: Path) -> None:
    with begin(tmp_path) as ledger:
        pay(ledger, "one", 1, secure=False)
    assert read_account(tmp_path).insecure == 2


def test_what_is_no_ledger_is_said_by_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no ledger\.jsonl; name a site's state folder"):
        read_account(tmp_path)
    path = tmp_path / "ledger.jsonl"
    for content in (b"", b'{"kind": "charge"}\n', b"\x00\x01\n{}\n"):
        path.write_bytes(content)
        with pytest.raises(LedgerDamaged, match=f"line 1 of the ledger {re.escape(str(path))} is damaged"):
            read_account(tmp_path)


def test_a_run_is_explained_site_by_site_with_the_last_claim() -> None:
    def line(site: str, round_: int, status: str, sent: int, claim: str | None = None) -> dict[str, object]:
        return {"kind": "site", "site": site, "round": round_, "status": status, "bytes_up": sent, "claim": claim}

    events = [
        {"kind": "round", "round": 1},
        line("plain", 1, "ok", 10),
        line("private", 1, "ok", 10, "ε = 1"),
        line("private", 2, "rejected", 10, "ε = 2"),
        line("silent", 1, "no reply", 0),
        line("refuses", 1, "refused", 3),
        line("poisoned", 1, "rejected", 10),
    ]
    assert guarantees(("plain", "private", "silent", "refuses", "poisoned"), events) == {
        "plain": NONE, "private": "ε = 2", "silent": NOTHING_LEFT, "refuses": NOTHING_LEFT, "poisoned": NONE,
    }  # fmt: skip
