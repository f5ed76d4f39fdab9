"""A study carried out: real runs, few and tiny, once whole, once resumed, once with a cell that fails."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fed_fsad import methods
from fed_fsad.errors import FederationError
from fed_fsad.evaluation.draws import save_draws
from fed_fsad.evaluation.results import DrawFigures, EachDraw
from fed_fsad.privacy.account import LEDGER
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.lines import Request
from fed_fsad.rundir import RunDir
from simulations.batch.budget import Limits
from simulations.batch.folder import add_cost, costs, run_folder
from simulations.study.collect import costs_of, figures
from simulations.study.compare import Line, by_line, gain, mean
from simulations.study.plan import Cell
from simulations.study.run import study
from simulations.study.settings import load_study
from tests.federation.test_ray_faults import children_of, wait_until
from tests.simulations.test_study import cells, written
from tests.test_daemon import lives, wait_for

GRID = {"federation.weighting": ["equal", "size"]}


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


# ---- from made-up draws


def drawn(values: tuple[float, float], task: str, metric: str = "image_auroc") -> EachDraw:
    """Two draws, and resamples that swing around their mean."""
    rows = tuple(DrawFigures(task, 2, i, (("id", "x"),), {metric: value}) for i, value in enumerate(values))
    middle = float(np.mean(values))
    return EachDraw(rows, {(task, 2, metric): tuple(middle + 0.1 * np.sin(np.arange(200.0)))})


@pytest.fixture
def made_up(tmp_path: Path) -> tuple[list[Cell], Path]:
    """Two points, two seeds; size is 0.05 above equal in seed 0 and 0.15 above it in seed 1."""
    planned, out = cells(tmp_path, grid=GRID, seeds=2), tmp_path / "out"
    for cell in planned:
        more = (0.05 + 0.1 * cell.seed) if cell.labels["federation.weighting"] == "size" else 0.0
        folder = run_folder(out, cell.name) / "evaluation" / "d24fad"
        save_draws(drawn((0.5 + more, 0.6 + more), "oct"), folder, "federated")
        save_draws(drawn((0.4, 0.4), "oct"), folder, "local-north")
        save_draws(drawn((0.5, 0.7), "oct"), folder, "local-south")
    return planned, out


def test_figures_are_means_over_draws_and_hospitals(made_up: tuple[list[Cell], Path]) -> None:
    found = figures(*made_up)
    values = {(f.cell.name, f.detector): f.value for f in found}
    assert values["equal_seed0", "federated"] == pytest.approx(0.55)
    assert values["size_seed1", "federated"] == pytest.approx(0.7)
    assert values["equal_seed0", "local"] == pytest.approx(0.5)


def test_differences_are_paired_over_seeds_and_resamples(made_up: tuple[list[Cell], Path]) -> None:
    """The swings are the same on both sides, so nothing of them is left: the interval is that of the two seeds."""
    lines = by_line(figures(*made_up))
    equal, size = (lines[Line((label,), "d24fad", "federated", "image_auroc", 2)] for label in ("equal", "size"))
    found = gain(size, equal)
    assert found is not None
    assert found.value == pytest.approx(0.1)
    assert found.interval == pytest.approx((0.05, 0.15), abs=1e-6)
    assert found.verdict == "better"
    assert mean(size).value == pytest.approx(0.65)
    low, high = mean(size).interval or (0, 0)
    assert low < 0.55
    assert high > 0.75
    assert gain(size, {}) is None


def test_rho_is_that_of_the_site_where_noise_is_worst(tmp_path: Path) -> None:
    """One part allowed at one site, all at the other; both counted by hand, without the biases that nothing moves."""
    (cell,) = cells(tmp_path, set={"hospitals.south.policy.methods": {"d24fad": ["affine"]}})
    run = RunDir.create(run_folder(tmp_path, cell.name), cell.config)
    method = methods.build("d24fad", cell.config.training["d24fad"], 0)
    for site, count in (("north", 40), ("south", 5)):
        records = tuple((f"image{i}",) for i in range(count))
        with Ledger.open(run.path / "sites" / site / LEDGER, unit="image", delta=1e-5, epsilon=100.0) as ledger:
            ledger.freeze("d24fad", records)
            ledger.charge(Request(run="r", round=1, method="d24fad", key="k"), "x", releases=4, sigma=3.0, secure=True)
    run.write_summary({
        "sites": {name: {"epsilon": 2.0} for name in ("north", "south")}, "bytes": {"up": 1, "down": 1},
        "seconds": {"total": 1.0},
    })  # fmt: skip
    sizes = {name: tensor.numel() for name, tensor in method.trainable().items()}
    every = sum(size for name, size in sizes.items() if not (name.startswith("weighting") and name.endswith("bias")))
    affine = sum(size for name, size in sizes.items() if name.startswith("affine"))
    own = {"north": 1.5 * every**0.5 / 40, "south": 1.5 * affine**0.5 / 5}
    assert costs_of([cell], tmp_path)[cell.name].rho == {"d24fad": pytest.approx(max(own.values()))}
    assert own["north"] != own["south"]


# ---- with the real engine


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("study")
    path = written(folder, grid=GRID, arms=["federated"], question="Does weighting matter?")
    carry_out(path, folder / "out")
    return path, folder / "out"


def carry_out(path: Path, out: Path, *overrides: str) -> list[str]:
    said: list[str] = []
    study(load_study(path, overrides), str(path), out, Limits(2, memory=1e12), [], said.append)
    return said


@pytest.mark.slow
def test_one_tidy_table_and_one_report(done: tuple[Path, Path]) -> None:
    _, out = done
    rows = read(out / "results.csv")
    assert {row["cell"] for row in rows} == {"equal_seed0", "size_seed0"}
    for name in ("equal", "size"):
        summary = RunDir(out / "runs" / f"{name}_seed0").summary()
        (own,) = [row for row in rows if (row["federation.weighting"], row["detector"], row["metric"], row["K"]) ==
                  (name, "federated", "image_auroc", "2")]  # fmt: skip
        assert float(own["value"]) == pytest.approx(summary["methods"]["d24fad"]["headline"])
        assert float(own["low"]) <= float(own["value"]) <= float(own["high"])
        assert int(own["bytes_up"]) == summary["bytes"]["up"] > 0
        assert (own["epsilon"], own["seed"]) == ("", "0")
    assert {row["bytes_up"] for row in rows if row["kind"] == "baseline"} == {""}
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "Does weighting matter?" in page
    assert "<svg" in page
    assert "not told apart" in page
    assert set(costs(out)) == {"equal_seed0", "size_seed0"}
    assert not (out / "features").exists()
    assert all(2**20 < cost["peak"] < 2**40 and cost["seconds"] > 0 for cost in costs(out).values())


@pytest.mark.slow
def test_complete_cells_are_not_run_again_and_a_stopped_one_ends_in_the_same_bits(done: tuple[Path, Path]) -> None:
    path, out = done
    table = (out / "results.csv").read_bytes()
    kept, stopped = (out / "runs" / f"{name}_seed0" for name in ("equal", "size"))
    before = (kept / "metrics.jsonl").stat().st_mtime_ns
    (stopped / "summary.json").unlink()
    log = stopped / "metrics.jsonl"
    lines = [line for line in log.read_bytes().splitlines(keepends=True) if b'"kind": "baseline"' not in line]
    log.write_bytes(b"".join(lines) + b'{"kind": "evalu')  # as a kill leaves it
    seconds = costs(out)["size_seed0"]["seconds"]
    said = carry_out(path, out)
    assert "1 of 2 runs are complete already" in said
    assert (kept / "metrics.jsonl").stat().st_mtime_ns == before
    assert costs(out)["size_seed0"]["seconds"] > seconds

    def without_time(content: bytes) -> list[list[str]]:
        rows = list(csv.reader(content.decode().splitlines()))
        place = rows[0].index("seconds")
        return [[*row[:place], *row[place + 1 :]] for row in rows]

    assert without_time((out / "results.csv").read_bytes()) == without_time(table)


@pytest.mark.slow
def test_a_failed_cell_stops_no_other_and_is_named(tmp_path: Path) -> None:
    weights = {"methods.d24fad.teacher": {"name": "resnet18", "weights": "nowhere.pth"}}
    path, out = written(tmp_path, grid={"teacher": {"lost": weights, "there": None}}, arms=[]), tmp_path / "out"
    with pytest.raises(FederationError, match=r"1 of 2 runs failed \(lost_seed0: .*nowhere.pth.*same command"):
        carry_out(path, out)
    assert {row["teacher"] for row in read(out / "results.csv")} == {"there"}
    assert "The cell lost_seed0 failed" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_cells_of_other_code_are_named(done: tuple[Path, Path]) -> None:
    path, out = done
    add_cost(out, "equal_seed0", {"seconds": 0.0, "peak": 0, "code": "0.0.1+abc"})
    said = carry_out(path, out)
    assert any("1 cell (equal_seed0) come from other code (0.0.1+abc; now" in line for line in said), said
    assert "0.0.1+abc" in (out / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_cell_outlives_its_study(tmp_path: Path, number: signal.Signals) -> None:
    path, out = written(tmp_path, grid={"federation.rounds": [400]}, arms=["federated"]), tmp_path / "out"
    command = [sys.executable, "-m", "fed_fsad.cli", "study", str(path), "--out", str(out)]
    run = out / "runs" / "rounds-400_seed0"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until((run / "checkpoints" / "latest.json").exists, process)
        family = children_of(process.pid) - {process.pid}
        assert len(family) == 3  # what forks cells, who watches over the cell, and the cell
        process.send_signal(number)
        assert process.wait(60) == (130 if number == signal.SIGTERM else -signal.SIGKILL)
    wait_for(lambda: not any(map(lives, family)))
    said = (tmp_path / "log").read_text()
    assert ("stopped; the same command goes on in" in said) == (number == signal.SIGTERM)
    assert RunDir(run).status != "completed"
    rounds = json.loads((run / "checkpoints" / "latest.json").read_text())["round"]
    assert 0 < rounds < 400
