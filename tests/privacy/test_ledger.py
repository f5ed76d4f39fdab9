"""The ledger counts everything, survives what may happen to a file, and says no in time."""

import json
import math
import multiprocessing
import os
from pathlib import Path

import pytest

from fed_fsad.errors import BudgetSpent, DataError, PolicyRefusal
from fed_fsad.privacy.accounting import gaussian_epsilon, noise_for, printed
from fed_fsad.privacy.admission import claim, plan_noise
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.lines import Request
from fed_fsad.privacy.policy import Policy

DELTA = 1e-5


def begin(path: Path, epsilon: float = 8.0) -> Ledger:
    return Ledger.open(path, unit="image", delta=DELTA, epsilon=epsilon)


def ask(round: int, run: str = "run", method: str = "sdmad", key: str = "k") -> Request:
    return Request(run=run, round=round, method=method, key=key)


def pay(ledger: Ledger, request: Request, release: str = "r", sigma: float = 4.0, releases: int = 2) -> float:
    return ledger.charge(request, release, releases=releases, sigma=sigma, secure=True).epsilon_after


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "site" / "ledger.jsonl"


def test_charges_add_up_over_rounds_methods_runs_and_restarts(path: Path) -> None:
    for number, (round, run, method) in enumerate([(1, "a", "sdmad"), (2, "a", "sdmad"), (2, "a", "d"), (1, "b", "d")]):
        with begin(path) as ledger:
            after = pay(ledger, ask(round, run, method))
            expected = gaussian_epsilon(math.sqrt((number + 1) * 2 / 16), DELTA)
            assert after == ledger.epsilon == pytest.approx(expected, rel=1e-12)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] | {"unit": "image", "delta": DELTA, "adjacency": "remove one record", "version": 1} == lines[0]
    assert [line["mu_squared"] for line in lines[1:]] == [0.125] * 4


def test_the_same_bytes_are_paid_for_once_and_other_bytes_again(path: Path) -> None:
    with begin(path) as ledger:
        first = pay(ledger, ask(1))
        assert pay(ledger, ask(1)) == first
        assert len(ledger.charges) == 1
    with begin(path) as ledger:
        assert pay(ledger, ask(1)) == first
        assert pay(ledger, ask(1), release="other bytes") > first
        pay(ledger, ask(1, key="other question"))
        assert len(ledger.charges) == 3


def test_a_cheaper_price_for_the_same_bytes_does_not_count(path: Path) -> None:
    with begin(path) as ledger:
        pay(ledger, ask(1), sigma=40.0)
        pay(ledger, ask(1), sigma=4.0)
        assert len(ledger.charges) == 2


def test_a_planned_training_fits_the_budget_and_nothing_more_does(path: Path) -> None:
    sigma = noise_for(2.0, DELTA, 7)
    with begin(path, epsilon=2.0) as ledger:
        for round in range(7):
            assert not ledger.would_exceed(1, sigma)
            pay(ledger, ask(round), sigma=sigma, releases=1)
        assert 1.99 < ledger.epsilon <= 2.0
        assert ledger.would_exceed(1, sigma)
        before = path.read_bytes()
        with pytest.raises(BudgetSpent, match="is spent"):
            pay(ledger, ask(7), sigma=sigma, releases=1)
        assert path.read_bytes() == before
        assert pay(ledger, ask(3), sigma=sigma, releases=1) <= 2.0


def test_a_later_run_gets_what_the_others_left(path: Path) -> None:
    policy = Policy(privacy="example", epsilon=2.0, delta=DELTA, least_noise=0.5)
    with begin(path, epsilon=2.0) as ledger:
        assert plan_noise(policy, ledger, "new", 5) == pytest.approx(noise_for(2.0, DELTA, 5))
        pay(ledger, ask(1, run="old"), sigma=noise_for(1.5, DELTA, 3), releases=3)
        sigma = plan_noise(policy, ledger, "new", 5)
        assert sigma > noise_for(2.0, DELTA, 5)
        for round in range(5):
            pay(ledger, ask(round, run="new"), sigma=sigma, releases=1)
            assert plan_noise(policy, ledger, "new", 5) == sigma
        assert ledger.epsilon == pytest.approx(2.0, rel=1e-6)
        with pytest.raises(BudgetSpent):
            plan_noise(policy, ledger, "third", 5)
        assert plan_noise(policy.model_copy(update={"least_noise": 99.0}), ledger, "new", 5) == 99.0


def test_unit_delta_and_split_are_frozen(path: Path) -> None:
    with begin(path) as ledger:
        ledger.freeze("d24fad", (("a", "b"), ("c", "d")))
        ledger.freeze("sdmad", (("a",),))
    with begin(path) as ledger:
        ledger.freeze("d24fad", (("a", "b"), ("c", "d")))
        with pytest.raises(PolicyRefusal) as refusal:
            ledger.freeze("d24fad", (("a", "c"), ("b", "d")))
        assert refusal.value.code == "split_changed"
    for unit, delta in (("patient", DELTA), ("image", 1e-6)):
        with pytest.raises(PolicyRefusal, match="set the policy back") as refusal:
            Ledger.open(path, unit=unit, delta=delta, epsilon=8.0)  # type: ignore[arg-type]
        assert refusal.value.code == "ledger_of_another_guarantee"
    begin(path).close()


def _second_opens(path: Path) -> None:
    try:
        begin(path)
    except PolicyRefusal as refusal:
        os._exit(7 if refusal.code == "ledger_busy" and "wait until" in str(refusal) else 1)
    os._exit(0)


def test_a_second_process_is_refused_while_the_ledger_is_open(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    for is_open, code in ((True, 7), (False, 0)):
        ledger = begin(path)
        if not is_open:
            ledger.close()
        process = context.Process(target=_second_opens, args=(path,))
        process.start()
        process.join(60)
        ledger.close()
        assert process.exitcode == code


def test_a_torn_last_line_is_dropped_at_every_length(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with begin(path) as ledger:
        pay(ledger, ask(1))
    one = path.read_bytes()
    with begin(path) as ledger:
        pay(ledger, ask(2))
    two = path.read_bytes()
    for length in [*range(len(one) + 1, len(two) - 1, 37), len(two) - 2]:
        path.write_bytes(two[:length])
        with begin(path) as ledger:
            assert len(ledger.charges) == 1
        assert path.read_bytes() == one
    assert "torn by a crash" in caplog.text


def test_a_last_line_that_only_lacks_its_newline_still_counts(path: Path) -> None:
    with begin(path) as ledger:
        pay(ledger, ask(1))
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with begin(path) as ledger:
        assert len(ledger.charges) == 1
        pay(ledger, ask(2))
    assert path.read_bytes().startswith(content)


def test_a_torn_header_begins_anew(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b'{"kind":"head')
    with begin(path) as ledger:
        pay(ledger, ask(1))
    with begin(path) as ledger:
        assert len(ledger.charges) == 1


@pytest.mark.parametrize("damage", ["garbled", "cheaper", "missing", "emptied", "foreign", "headless", "two headers"])
def test_damage_inside_stops_everything(path: Path, damage: str) -> None:
    with begin(path) as ledger:
        for round in range(3):
            pay(ledger, ask(round))
    lines = path.read_bytes().splitlines(keepends=True)
    changed = {
        "garbled": [*lines[:2], b"\x00\xff" + lines[2][2:], lines[3]],
        "cheaper": [*lines[:2], lines[2].replace(b'"sigma":4.0', b'"sigma":9.0'), lines[3]],
        "missing": [*lines[:2], lines[3]],
        "emptied": [*lines[:2], b"\n", lines[3]],
        "foreign": [lines[0].replace(b'"version":1', b'"version":2'), *lines[1:]],
        "headless": lines[1:],
        "two headers": [*lines, lines[0]],
    }[damage]
    assert changed != lines
    path.write_bytes(b"".join(changed))
    with pytest.raises(DataError, match=r"line \d of the ledger .* is damaged"):
        begin(path)
    assert path.read_bytes() == b"".join(changed)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PolicyRefusal) as refusal:
        begin(tmp_path / "file" / "ledger.jsonl")
    assert refusal.value.code == "ledger_unwritable"


def test_a_full_disk_ends_the_ledger_and_what_was_torn_is_mended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = begin(path)
    pay(ledger, ask(1))

    def no_room(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_room)
        with pytest.raises(PolicyRefusal, match="No space left on device"):
            pay(ledger, ask(2))
    with pytest.raises(ValueError, match="closed"):
        pay(ledger, ask(3))
    with begin(path) as again:
        assert len(again.charges) == 2, "the line may have reached the disk: it counts"


def test_the_claim_says_what_holds(path: Path) -> None:
    policy = Policy(privacy="example", epsilon=8.0, delta=DELTA)
    with begin(path) as ledger:
        pay(ledger, ask(1))
        text = claim(policy, ledger)
        assert text.startswith("Image-level")
        assert f"ε = {printed(ledger.epsilon)} spent of 8 and δ = 1e-05" in text
        assert "removal of one image together with the training episode" in text
        assert text.count(". ") == 0
        ledger.charge(ask(2), "r", releases=3, sigma=4.0, secure=False)
        assert claim(policy, ledger).startswith("No guarantee: the noise of 3 releases")
