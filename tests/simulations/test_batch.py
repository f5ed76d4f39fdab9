"""Places for runs: never more than cores, memory and GPUs allow; and the folder that keeps what runs have cost."""

import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fed_fsad.errors import CheckpointError, FederationError
from simulations.batch.budget import GIB, Budget, Limits, gpus
from simulations.batch.draws import over_seeds, shown_shots
from simulations.batch.folder import add_cost, code, costs, open_folder
from simulations.batch.table import check_failed
from tests.simulations.test_study import cells


class Crowd:
    """Runs that hold their place for a moment; counts how many do so at once."""

    def __init__(self, budget: Budget, peak: int) -> None:
        self.budget, self.peak = budget, peak
        self.inside, self.most = 0, 0
        self.seen: list[str | None] = []
        self._lock = threading.Lock()

    def run(self, _: int) -> None:
        with self.budget.place() as gpu:
            with self._lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
                self.seen.append(gpu)
            time.sleep(0.02)
            with self._lock:
                self.inside -= 1
        self.budget.took(self.peak)

    def all(self, count: int) -> int:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self.run, range(count)))
        return self.most


def test_no_more_runs_than_jobs() -> None:
    assert Crowd(Budget(Limits(3), []), 0).all(12) == 3


def test_memory_lets_one_run_show_what_it_takes_and_then_as_many_as_fit() -> None:
    budget = Budget(Limits(8, memory=5 * GIB), [])
    assert budget.lanes == 1
    assert Crowd(budget, 2 * GIB).all(1) == 1
    assert budget.lanes == 2
    assert Crowd(budget, 2 * GIB).all(12) == 2


def test_a_run_larger_than_the_budget_still_gets_its_turn_alone() -> None:
    assert Crowd(Budget(Limits(8, memory=1 * GIB), [], largest=3 * GIB), 3 * GIB).all(4) == 1


def test_what_earlier_runs_took_need_not_be_measured_again() -> None:
    assert Budget(Limits(8, memory=6 * GIB), [], largest=2 * GIB).lanes == 3


def test_every_run_has_a_gpu_of_its_own() -> None:
    crowd = Crowd(Budget(Limits(8), ["3", "5"]), 0)
    assert crowd.all(8) == 2
    assert set(crowd.seen) == {"3", "5"}


def test_gpus_are_handed_out_where_there_are_several_and_runs_ask_for_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cell,) = cells(tmp_path)
    asks = cell.config.model_copy(update={"machine": cell.config.machine.model_copy(update={"device": "cuda"})})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,7")
    assert gpus([cell.config, asks]) == ["2", "7"]
    assert gpus([cell.config]) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    assert gpus([asks]) == []


def test_who_waits_when_all_is_stopped_gets_no_place() -> None:
    budget, caught = Budget(Limits(1), []), []

    def late() -> None:
        try:
            with budget.place():
                caught.append("a place")
        except CancelledError:
            caught.append("nothing")

    with budget.place():
        waiting = threading.Thread(target=late)
        waiting.start()
        budget.stop()
        waiting.join(5)
    assert caught == ["nothing"]


def test_the_folder_is_one_thing_s_and_says_by_what_it_differs(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no study to resume"):
        open_folder(tmp_path, {"a": 1}, "study", "require")
    open_folder(tmp_path, {"a": 1}, "study", "fresh")
    open_folder(tmp_path, {"a": 1}, "study", "auto")
    with pytest.raises(CheckpointError, match="already holds this study; add --resume auto"):
        open_folder(tmp_path, {"a": 1}, "study", "fresh")
    with pytest.raises(CheckpointError, match="another study: a was 1 and is 2; choose another --out"):
        open_folder(tmp_path, {"a": 2}, "study", "auto")
    with pytest.raises(CheckpointError, match="no benchmark's"):
        open_folder(tmp_path, {"a": 1}, "benchmark", "auto")


def test_costs_add_up_over_the_tries_of_a_run(tmp_path: Path) -> None:
    add_cost(tmp_path, "one", {"seconds": 2.0, "peak": 7, "code": "old"})
    add_cost(tmp_path, "two", {"seconds": 1.0, "peak": 1, "code": code()})
    add_cost(tmp_path, "one", {"seconds": 3.0, "peak": 5, "code": code()})
    assert costs(tmp_path)["one"] == {"seconds": 5.0, "peak": 7, "code": code()}
    assert costs(tmp_path)["two"]["seconds"] == 1.0


def test_failed_runs_are_named_and_many_of_them_counted() -> None:
    check_failed({}, 3, "mend that")
    with pytest.raises(FederationError, match=r"1 of 3 runs failed \(a: why\); mend that"):
        check_failed({"a": "why"}, 3, "mend that")
    with pytest.raises(FederationError, match=r"e: why and 2 more\)"):
        check_failed(dict.fromkeys("abcdefg", "why"), 9, "mend that")


def test_the_interval_resamples_seeds_as_wholes() -> None:
    """Two seeds 1 apart without any spread of their own: resamples are 0, 1/2 or 1 in parts of 1 : 2 : 1."""
    flat = {seed: np.full(4000, float(seed)) for seed in (0, 1)}
    assert over_seeds(flat) == (0.0, 1.0)
    assert over_seeds({5: np.linspace(0, 1, 1001)}) == pytest.approx((0.025, 0.975))
    assert over_seeds({}) is None


def test_the_k_that_tables_show() -> None:
    assert [shown_shots("d24fad", k) for k in ((8, 4, 1), (1, 2), (16,))] == [4, 2, 16]
    assert shown_shots("sdmad", (4, 16, 8)) == 16
