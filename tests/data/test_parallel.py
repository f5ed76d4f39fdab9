"""Work shared out over threads or processes: the same answers in the same order."""

import os
import signal
import time
from functools import partial

import pytest

from fed_fsad.data import parallel
from fed_fsad.data.parallel import ordered
from fed_fsad.errors import DataError


def slowly(number: int, odd_s: float = 0.0) -> tuple[int, int]:
    """The number squared, and which process found it out."""
    time.sleep(odd_s * (number % 2))
    if number == 33:
        raise DataError("33 is broken")
    return number**2, os.getpid()


@pytest.mark.parametrize("heavy", [True, False])
def test_answers_come_in_order_and_only_a_few_ahead(heavy: bool) -> None:
    asked: list[int] = []

    def work(number: int) -> int:
        asked.append(number)
        time.sleep(0.002 * (number % 2))
        return number

    answers = ordered(work, range(60), heavy)
    assert [next(answers) for _ in range(5)] == list(range(5))
    assert len(asked) < 25
    assert list(answers) == list(range(5, 60))
    assert sorted(asked) == list(range(60))


@pytest.mark.slow
def test_a_long_rest_is_given_to_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "PATIENCE", 0.01)
    monkeypatch.setattr(parallel, "PAYS", 0.0)
    answers = list(ordered(partial(slowly, odd_s=0.02), range(33), heavy=True))
    assert [square for square, _ in answers] == [number**2 for number in range(33)]
    assert answers[0][1] == os.getpid()
    assert os.getpid() not in {process for _, process in answers[10:]}
    with pytest.raises(DataError, match="33 is broken"):
        list(ordered(partial(slowly, odd_s=0.02), range(40), heavy=True))


def die(number: int, home: int) -> int:
    """End the process it is in, unless that is the one called `home`."""
    if os.getpid() != home:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.01)
    return number


@pytest.mark.slow
def test_a_lost_process_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "PATIENCE", 0.005)
    monkeypatch.setattr(parallel, "PAYS", 0.0)
    with pytest.raises(DataError, match="ended from outside, most often because memory ran out; give"):
        list(ordered(partial(die, home=os.getpid()), range(20), heavy=True))


def test_a_short_rest_stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "PATIENCE", 0.01)
    answers = list(ordered(partial(slowly, odd_s=0.02), range(20), heavy=True))
    assert {process for _, process in answers} == {os.getpid()}
