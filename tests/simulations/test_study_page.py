"""What a study's report draws and tabulates, from figures that are made up."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulations.study.collect import Cost, Figure
from simulations.study.page import Findings, Part, parts
from simulations.study.plan import Cell, plan
from simulations.study.settings import StudySettings, load_study
from tests.simulations.test_study import written

DETECTORS = (("federated", "arm", 0.1), ("pooled", "arm", 0.2), ("knn", "baseline", 0.0), ("raw_pixels", "baseline", 0))


def figure(cell: Cell, detector: str, kind: str, more: float, shots: int) -> Figure:
    """Better with every round by 0.01, with every K by 0.1, in the second variant of the server by 0.05."""
    rounds = cell.config.federation.rounds
    value = 0.5 + more + 0.01 * rounds + 0.1 * shots + 0.05 * (cell.config.federation.strategy.name == "fedmedian")
    resamples = value + 0.02 * np.sin(np.arange(100.0))
    return Figure(cell, "d24fad", detector, kind, "image_auroc", shots, value, resamples)


def report(folder: Path, cells_to_do: int = 99, **keys: Any) -> tuple[list[Part], Findings]:
    path = written(folder, **keys)
    settings: StudySettings = load_study(path)
    cells: Sequence[Cell] = plan(settings, "study")[:cells_to_do]
    found = [figure(cell, *who, shots) for cell in cells for who in DETECTORS for shots in (1, 2)]
    costs = {cell.name: Cost(10**6, 10**6 * cell.config.federation.rounds, 2.0, None) for cell in cells}
    findings = Findings(settings, found, costs)
    return list(parts(findings)), findings


GRID = {
    "server": {"mean": None, "median": {"federation.strategy.name": "fedmedian"}},
    "federation.rounds": [1, 2, 4],
}


def test_a_line_per_arm_and_variant_and_dashed_baselines(tmp_path: Path) -> None:
    (part,), _ = report(tmp_path, grid=GRID, axis="federation.rounds", seeds=2)
    (chart,) = part.charts
    assert chart.title == "D²4FAD: image AUROC, K = 2"
    labels = {key.label: key.glyph for key in chart.keys}
    assert list(labels) == [
        "Federated, mean", "Federated, median", "All images in one place, mean", "All images in one place, median",
        "kNN on frozen patch features",
    ]  # fmt: skip
    assert labels["kNN on frozen patch features"] == "–"
    own = [row for row in chart.sheet.rows if row[0] == "Federated, median"]
    assert [row[1] for row in own] == ["1", "2", "4"]
    assert [row[2] for row in own] == pytest.approx([0.86, 0.87, 0.89])
    assert float(own[0][3] or 0) < 0.86 < float(own[0][4] or 0)


def test_further_axes_make_a_chart_each(tmp_path: Path) -> None:
    grid = {"federation.weighting": ["equal", "size"], **GRID}
    (part,), _ = report(tmp_path, grid=grid, axis="federation.rounds")
    assert [chart.title.rsplit(", ", 1)[1] for chart in part.charts] == ["weighting equal", "weighting size"]
    assert len({chart.name for chart in part.charts}) == 2


def test_against_k_and_against_bytes(tmp_path: Path) -> None:
    (part,), _ = report(tmp_path, grid=GRID, axis="shots")
    rows = part.charts[0].sheet.rows
    assert {row[1] for row in rows} == {"1", "2"}
    (part,), _ = report(tmp_path, grid={"federation.rounds": [1, 2, 4]}, axis="bytes", seeds=2)
    assert [row[:2] for row in part.charts[0].sheet.rows] == [("1", 2.0), ("2", 3.0), ("4", 5.0)]


def test_tables_hold_paired_differences_to_the_arms_and_to_the_first_value(tmp_path: Path) -> None:
    (part,), _ = report(tmp_path, grid={"federation.rounds": [1, 2, 4]}, seeds=3)
    arms, moved = part.tables
    assert [[cell.text for cell in row] for row in arms.rows[:3]] == [
        ["1", "Federated", "2", "0.810", "", ""],
        ["1", "All images in one place", "2", "0.910", "−0.100", "worse"],
        ["1", "kNN on frozen patch features", "2", "0.710", "+0.100", "better"],
    ]
    assert arms.rows[1][4].note == "−0.100 to −0.100"
    assert {row[0].text for row in arms.rows} == {"1", "2", "4"}
    assert [[cell.text for cell in row] for row in moved.rows] == [
        ["2", "2", "0.820", "+0.010", "better"],
        ["4", "2", "0.840", "+0.030", "better"],
    ]
    assert moved.rows[1][3].note == "+0.030 to +0.030"


def test_a_study_that_has_only_begun_shows_what_is_there(tmp_path: Path) -> None:
    (part,), findings = report(tmp_path, cells_to_do=1, grid=GRID, axis="federation.rounds")
    assert len(part.charts) == 1
    assert findings.points == [("mean", "1")]
    assert [table.caption for table in part.tables] == ["Federated against the others"]
    assert report(tmp_path, cells_to_do=0, grid=GRID)[0] == []


def test_a_figure_nobody_has_makes_no_part(tmp_path: Path) -> None:
    assert report(tmp_path, grid=GRID, figures=["p1"])[0] == []
