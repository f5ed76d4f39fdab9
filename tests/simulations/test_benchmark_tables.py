"""What a benchmark's tables say, from rows and run directories that are made up."""

import csv
from pathlib import Path

import numpy as np
import pytest

from fed_fsad.evaluation.draws import save_draws
from fed_fsad.evaluation.results import DrawFigures, EachDraw
from simulations.batch.folder import run_folder
from simulations.benchmark.collect import Collected, Row, collect, per_draw
from simulations.benchmark.plan import BenchmarkSettings, plan
from simulations.benchmark.table import MEAN, cells, tables

SETTINGS = BenchmarkSettings(method="d24fad", phantoms=("oct", "fundus"), shots=(1, 2), seeds=2, draws=2)
SIGNS = BenchmarkSettings(
    method="sdmad", phantoms=("oct", "fundus"), shots=(1, 2), seeds=1, draws=1, ablations=("no_signs",)
)


def made_up() -> Collected:
    """Two tasks, two seeds, two draws; local has two sites; `easy` is right always."""
    rows = [
        Row(f"without-{task}-seed{seed}", seed, detector, kind, site, task, 1, draw, {"image_auroc": value + draw / 10})
        for task, base in (("a", 0.5), ("b", 0.7))
        for seed in (0, 1)
        for draw in (0, 1)
        for detector, kind, site, value in (
            ("federated", "arm", "", base + seed / 10),
            ("local", "arm", "x", base),
            ("local", "arm", "y", base + 0.2),
        )
    ]
    flat = {(detector, task, 1, "image_auroc"): {
        f"without-{task}-seed{seed}": np.linspace(0.4, 0.6, 101) + seed for seed in (0, 1)
    } for detector in ("federated", "local") for task in ("a", "b")}  # fmt: skip
    return Collected(tuple(rows), flat, {f"without-{task}-seed{seed}": seed for task in "ab" for seed in (0, 1)})


def test_mean_and_deviation_are_over_seeds_and_draws_of_the_mean_over_tasks() -> None:
    found = cells(made_up(), "federated", "image_auroc", 1)
    a = [0.5, 0.6, 0.6, 0.7]
    assert (found["a"].mean, found["a"].sd) == (pytest.approx(np.mean(a)), pytest.approx(np.std(a, ddof=1)))
    assert (found[MEAN].mean, found[MEAN].sd) == (pytest.approx(0.7), pytest.approx(np.std(a, ddof=1)))


def test_sites_of_the_local_arm_are_averaged_before_anything_else() -> None:
    rows = [row for row in made_up().rows if row.detector == "local"]
    assert per_draw(rows, "image_auroc")["a"] == {
        (seed, draw): pytest.approx(0.6 + draw / 10) for seed in (0, 1) for draw in (0, 1)
    }


def test_the_interval_resamples_seeds_as_wholes() -> None:
    """Seeds 1 apart: half of the resamples take one of each, a quarter twice the lower one, a quarter the higher."""
    low, high = cells(made_up(), "federated", "image_auroc", 1)[MEAN].interval or (0, 0)
    assert 0.4 <= low <= 0.5
    assert 1.5 <= high <= 1.6


def test_a_figure_that_nobody_has_is_a_dash() -> None:
    text = tables(made_up(), SETTINGS)
    last = text.split("### image AUROC by K")[1].splitlines()
    assert [cell.strip() for cell in last[4].split("|")[1:-1]][-1] == "–"


# ---- from run directories


def drawn(p1: float, task: str = "oct", shots: int = 2) -> EachDraw:
    row = DrawFigures(task, shots, 0, (("id-1", "one"), ("id-2", "two")), {"p1": p1, "held_out": float("nan")})
    return EachDraw((row,), {(task, shots, "p1"): (p1 - 0.1,) * 20 + (p1 + 0.1,) * 20})


def test_run_directories_become_rows_and_supports(tmp_path: Path) -> None:
    """Ablations give their federated model only: their baselines would be the whole method's once more."""
    whole, less = plan(SIGNS)
    assert (whole.ablation, less.ablation) == ("", "no_signs")
    for run, names in ((whole, ("federated", "local-a-1", "local-b-2", "baseline-zero_shot")),
                       (less, ("federated", "untrained", "baseline-zero_shot"))):  # fmt: skip
        for number, name in enumerate(names):
            save_draws(drawn(0.5 + number / 10), run_folder(tmp_path, run.name) / "evaluation" / "sdmad", name)
    found = collect([whole, less], "sdmad", tmp_path)
    assert [(row.detector, row.kind, row.site, row.figures["p1"]) for row in found.rows] == [
        ("zero_shot", "baseline", "", 0.8),
        ("federated", "arm", "", 0.5),
        ("local", "arm", "a-1", 0.6),
        ("local", "arm", "b-2", 0.7),
        ("no_signs", "ablation", "", 0.5),
    ]
    assert found.resamples["local", "oct", 2, "p1"][whole.name] == pytest.approx([0.55] * 20 + [0.75] * 20)
    lines = list(csv.DictReader((tmp_path / "rows.csv").read_text(encoding="utf-8").splitlines()))
    assert (lines[0]["detector"], lines[0]["p1"], lines[0]["held_out"]) == ("zero_shot", "0.8", "")
    supports = (tmp_path / "supports.csv").read_text(encoding="utf-8").splitlines()
    assert supports[0] == "run,seed,task,shots,draw,id,name"
    assert supports[1] == f"{whole.name},0,oct,2,0,id-1,one"
    assert len(supports) == 1 + 2 * 2


def test_the_table_names_who_trains_less_and_who_trains_nothing(tmp_path: Path) -> None:
    for run in plan(SIGNS):
        for name in ("federated", "baseline-zero_shot"):
            save_draws(drawn(0.5), run_folder(tmp_path, run.name) / "evaluation" / "sdmad", name)
    text = tables(collect(plan(SIGNS), "sdmad", tmp_path), SIGNS)
    block = text.split("at K = 2\n\n")[1].split("\n\n")[0].splitlines()
    assert [line.split("|")[1].strip() for line in block[2:]] == [
        "Federated",
        "Federated, class names for signs (ablation)",
        "Zero-shot with signs *",
    ]
    assert block[2].split("|")[2].strip() == "0.500 (0.40–0.60)"
    assert "held-out" not in text.split("### All figures")[1], "a figure that no row has makes no column"
