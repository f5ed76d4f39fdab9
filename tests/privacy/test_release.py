"""Kill it anywhere: no update leaves unpaid, and no price ever buys two draws of noise."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import safetensors.torch
import torch
from torch import Tensor

from fed_fsad import durable
from fed_fsad.errors import BudgetSpent, PolicyRefusal
from fed_fsad.privacy import ledger_file
from fed_fsad.privacy import release as release_module
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.lines import Request
from fed_fsad.privacy.noise import SecureNoise
from fed_fsad.privacy.release import Outbox, release, request_key

REQUEST = Request(run="run/1", round=3, method="toy", key="k")


def noisy() -> dict[str, Tensor]:
    flat = SecureNoise().normal([6]).float()
    return {"map/weight": flat[:4].reshape(2, 2).T, "map/shift": flat[4:]}


def answer(
    site: Path, request: Request = REQUEST, compute: Callable[[], dict[str, Tensor]] = noisy, sigma: float = 4.0
) -> dict[str, Tensor]:
    with Ledger.open(site / "ledger.jsonl", unit="image", delta=1e-5, epsilon=4.0) as ledger:
        return release(ledger, Outbox(site / "outbox"), request, releases=2, sigma=sigma, secure=True, compute=compute)


def charges(site: Path) -> int:
    with Ledger.open(site / "ledger.jsonl", unit="image", delta=1e-5, epsilon=4.0) as ledger:
        return len(ledger.charges)


def never() -> dict[str, Tensor]:
    raise AssertionError("noise was drawn a second time")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _killed_at(point: str, site: Path) -> None:
    """Answer in a process of its own that dies at `point`; what leaves is what it managed to write as `left`."""
    torch.set_num_threads(1)
    append, replace = durable.append, durable.replace

    def torn_append(file: BinaryIO, content: bytes) -> None:
        if b'"charge"' in content:
            if point != "before the charge":
                append(file, content if point == "after the charge" else content[: len(content) // 2])
            _die()
        append(file, content)

    def torn_replace(path: Path, content: bytes) -> None:
        if point == "while saving":
            path.with_name(path.name + ".part").write_bytes(content[:50])
            _die()
        replace(path, content)
        if point == "after saving":
            _die()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger_file, "append", torn_append)
        patch.setattr(release_module, "replace", torn_replace)
        left = answer(site)
    (site / "left").write_bytes(safetensors.torch.save(left))


def _kill(point: str, site: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_killed_at, args=(point, site))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not (site / "left").exists()


SAVED = ["after saving", "before the charge", "in the charge", "after the charge"]


@pytest.mark.parametrize("first", ["while saving", *SAVED])
@pytest.mark.parametrize("second", SAVED)
def test_killed_twice_the_budget_never_undercounts(first: str, second: str, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "outbox")
    _kill(first, tmp_path)
    drawn = outbox.get(REQUEST)
    assert (drawn is None) == (first == "while saving")
    assert charges(tmp_path) == (first == "after the charge")
    if (first in SAVED and second == "after saving") or first == "after the charge":
        # The second life does not reach that point any more: it answers.
        saved = outbox.get(REQUEST)
    else:
        _kill(second, tmp_path)
        saved = outbox.get(REQUEST)
    assert saved is not None
    assert drawn in (None, saved)
    left = answer(tmp_path, compute=never)
    assert charges(tmp_path) == 1
    for name, value in safetensors.torch.load(saved).items():
        assert torch.equal(left[name], value)


def test_asked_again_the_same_bytes_leave_unpaid(tmp_path: Path) -> None:
    first = answer(tmp_path)
    again = answer(tmp_path, compute=never)
    assert charges(tmp_path) == 1
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_what_is_asked_differently_is_drawn_and_paid_anew(tmp_path: Path) -> None:
    first = answer(tmp_path)
    other = answer(tmp_path, REQUEST.model_copy(update={"key": "other"}))
    assert not torch.equal(first["map/shift"], other["map/shift"])
    assert charges(tmp_path) == 2


def test_fresh_noise_for_an_old_question_is_paid_anew(tmp_path: Path) -> None:
    """A charge buys the bytes it was made for: when they are gone, new noise costs again."""
    answer(tmp_path)
    for file in (tmp_path / "outbox").iterdir():
        file.unlink()
    answer(tmp_path)
    assert charges(tmp_path) == 2


def test_over_budget_nothing_is_computed_saved_or_charged(tmp_path: Path) -> None:
    with pytest.raises(BudgetSpent):
        answer(tmp_path, compute=never, sigma=0.5)
    assert not (tmp_path / "outbox").exists()
    assert charges(tmp_path) == 0


def test_a_saved_update_does_not_leave_when_another_run_spent_the_budget(tmp_path: Path) -> None:
    _kill("after saving", tmp_path)
    for round in range(4):
        answer(tmp_path, Request(run="other", round=round, method="toy", key="k"), sigma=3.3)
    with pytest.raises(BudgetSpent):
        answer(tmp_path, sigma=1.2)


def test_only_the_last_round_of_a_run_is_kept(tmp_path: Path) -> None:
    def ask(round: int, method: str, run: str = "run") -> Request:
        return Request(run=run, round=round, method=method, key="k")

    outbox = Outbox(tmp_path)
    for request in (ask(1, "a"), ask(1, "b"), ask(1, "a", "other"), ask(12, "a"), ask(12, "b")):
        outbox.put(request, b"x")
    assert outbox.get(ask(1, "a")) is None
    assert outbox.get(ask(1, "b")) is None
    assert None not in (outbox.get(ask(12, "a")), outbox.get(ask(12, "b")), outbox.get(ask(1, "a", "other")))


def test_an_outbox_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("")
    with pytest.raises(PolicyRefusal) as refusal:
        answer(tmp_path)
    assert refusal.value.code == "outbox_unwritable"
    assert charges(tmp_path) == 0


def test_the_key_follows_from_tensors_and_settings_only() -> None:
    tensors = {"a": torch.ones(2, 2), "b": torch.zeros(3)}
    key = request_key(tensors, {"lr": 0.1, "steps": 2})
    assert key == request_key(dict(reversed(tensors.items())), {"steps": 2, "lr": 0.1})
    others = [
        request_key(tensors | {"b": torch.full([3], 1e-30)}, {"lr": 0.1, "steps": 2}),
        request_key({"a": torch.ones(4), "b": torch.zeros(3)}, {"lr": 0.1, "steps": 2}),
        request_key({"a": torch.ones(2, 2), "c": torch.zeros(3)}, {"lr": 0.1, "steps": 2}),
        request_key(tensors, {"lr": 0.1, "steps": 3}),
    ]
    assert len({key, *others}) == 5
