"""A benchmark is many runs of the real engine; here they are few and tiny."""

import csv
from pathlib import Path

import numpy as np
import pytest

from fed_fsad.errors import CheckpointError, ConfigError, DataError, FederationError
from fed_fsad.rundir import RunDir
from simulations.batch.budget import Limits
from simulations.batch.execute import execute
from simulations.batch.folder import open_folder, run_folder
from simulations.benchmark.plan import BenchmarkSettings, plan
from simulations.benchmark.run import benchmark
from tests.conftest import MakeFolder

TINY = (
    "methods.d24fad={teacher: {name: random}, image_size: 64, local_steps: 1, batch: 4}",
    "federation.rounds=1",
)


def settings(**changes: object) -> BenchmarkSettings:
    """Two organs, one seed, as few images as can be."""
    base: dict[str, object] = {
        "method": "d24fad", "phantoms": ("oct", "fundus"), "shots": (2, 1), "seeds": 1, "draws": 2,
        "arms": ("pooled", "local"), "train": 4, "test": 3, "set": TINY,
    }  # fmt: skip
    return BenchmarkSettings.model_validate({**base, **changes})


# ---- what is planned


def test_every_task_is_left_out_once_per_seed_and_held_by_nobody_then() -> None:
    runs = plan(settings(phantoms=("oct", "fundus", "liver_ct"), seeds=2))
    assert [(run.task, run.seed) for run in runs] == [
        (task, seed) for seed in (0, 1) for task in ("fundus", "liver_ct", "oct")
    ]
    for run in runs:
        held = [organ for holding in run.config.holdings.values() for organ in holding.organs]  # type: ignore[union-attr]
        assert sorted([*held, run.task]) == ["fundus", "liver_ct", "oct"]
        assert run.config.evaluation.unseen_task == run.task
        assert run.config.evaluation.every == run.config.federation.rounds == 1
        assert (run.config.seed, run.config.evaluation.shots) == (run.seed, (1, 2))


def test_one_scanner_per_organ_whoever_is_left_out() -> None:
    runs = plan(settings(phantoms=("oct", "fundus", "liver_ct")))
    styles = {(site, own.style) for run in runs for site, own in run.config.holdings.items()}  # type: ignore[union-attr]
    assert len(styles) == 3


def test_each_category_is_held_out_in_turn() -> None:
    runs = plan(settings(method="sdmad", held_out=("each",), hospitals=2, ablations=("context_only",), set=()))
    turns = {run.name.rsplit("-", 1)[0]: run.withheld for run in runs if not run.ablation}
    every = [name for names in turns.values() for name in names]
    assert len(every) == len(set(every))
    assert {"drusen", "hard exudates"} <= set(every)
    assert {len(run.config.hospitals) for run in runs} == {4}
    less = [run for run in runs if run.ablation]
    assert len(less) == len(turns)
    assert {run.config.arms for run in less} == {()}
    assert {tuple(run.config.methods["sdmad"].trainable) for run in less} == {("context",)}  # type: ignore[attr-defined]


def test_folders_are_one_task_each_and_find_their_signs(tmp_path: Path, make_folder: MakeFolder) -> None:
    root = make_folder({"train/normal": 8, "train/glioma": 4, "test/normal": 2, "test/glioma": 2})
    tasks = {"brain_mri": root, "mine": root}
    own = settings(method="sdmad", phantoms=(), tasks=tasks, shots=(1,), set=())
    (run,) = plan(own)
    assert run.config.methods["sdmad"].signs == ("brain_mri",)  # type: ignore[attr-defined]
    assert {own.cap for own in run.config.holdings.values()} == {4}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"phantoms": ("oct",)}, "two tasks at least"),
        ({"phantoms": ()}, "--task NAME=DIR, or phantom organs"),
        ({"set": ("seed=3",)}, "a benchmark varies this itself; --set takes methods"),
        ({"shots": (0,)}, "K must be at least 1"),
    ],
)
def test_settings_that_make_no_benchmark(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings(**changes)


def test_names_and_folders_that_do_not_exist() -> None:
    with pytest.raises(ConfigError, match="phantom organ 'octt' does not exist; did you mean 'oct'"):
        plan(settings(phantoms=("octt", "fundus")))
    with pytest.raises(ConfigError, match=r"--task mine=/no/where: there is no such folder"):
        plan(settings(phantoms=(), tasks={"mine": "/no/where", "other": "/no/where"}))
    with pytest.raises(ConfigError, match="withheld category 'druse' does not exist; did you mean 'drusen'"):
        plan(settings(method="sdmad", held_out=("druse",), set=()))


def test_too_few_normals_are_said_before_anything_is_trained(make_folder: MakeFolder) -> None:
    root = make_folder({"train/normal": 3, "train/bad": 3, "test/normal": 2, "test/bad": 2})
    own = settings(phantoms=(), tasks={"one": root, "two": root}, shots=(1, 4))
    with pytest.raises(DataError, match="task 'one' has 3 normal images to draw supports from, K = 4 needs 4; add"):
        plan(own)


# ---- the folder of a benchmark


def test_a_folder_of_another_benchmark_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    open_folder(tmp_path, settings().model_dump(mode="json"), "benchmark", "fresh")
    with pytest.raises(CheckpointError, match="another benchmark: seeds was 1 and is 2; choose another --out"):
        benchmark(settings(seeds=2), tmp_path, 1, "auto", print)
    assert not (tmp_path / "runs").exists()


# ---- the whole way, with the real engine


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("benchmark")
    return out, benchmark(settings(), out, 2, "fresh", lambda line: None)


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@pytest.mark.slow
def test_rows_hold_every_detector_task_k_and_draw(done: tuple[Path, str]) -> None:
    out, text = done
    rows = read(out / "rows.csv")
    detectors = {(row["detector"], row["site"]) for row in rows if row["task"] == "oct"}
    assert {("federated", ""), ("untrained", ""), ("pooled", ""), ("local", "fundus"), ("knn", "")} <= detectors
    for detector, site in detectors:
        mine = [row for row in rows if (row["detector"], row["site"], row["task"]) == (detector, site, "oct")]
        assert [(row["shots"], row["draw"]) for row in mine] == [("1", "0"), ("1", "1"), ("2", "0"), ("2", "1")]
    assert "Federated" in text
    assert (out / "tables.md").read_text(encoding="utf-8") == text
    summary = RunDir(out / "runs" / "without-oct-seed0").summary()["methods"]["d24fad"]
    mine = [float(row["image_auroc"]) for row in rows if (row["detector"], row["task"], row["shots"]) ==
            ("federated", "oct", "2")]  # fmt: skip
    assert summary["image_auroc"]["2"] == pytest.approx(np.mean(mine))


@pytest.mark.slow
def test_supports_name_the_images_of_every_draw(done: tuple[Path, str]) -> None:
    rows = [row for row in read(done[0] / "supports.csv") if row["run"] == "without-oct-seed0"]
    drawn = {(k, d): [row["id"] for row in rows if (row["shots"], row["draw"]) == (k, d)] for k in "12" for d in "01"}
    assert {key: len(ids) for key, ids in drawn.items()} == {("1", "0"): 1, ("1", "1"): 1, ("2", "0"): 2, ("2", "1"): 2}
    assert all(drawn["1", d][0] == drawn["2", d][0] for d in "01")


@pytest.mark.slow
def test_what_is_complete_is_not_run_again_and_gives_the_same_table(done: tuple[Path, str]) -> None:
    out, text = done
    log = out / "runs" / "without-oct-seed0" / "metrics.jsonl"
    before = log.read_bytes(), log.stat().st_mtime_ns
    assert benchmark(settings(), out, 1, "auto", lambda line: None) == text
    assert (log.read_bytes(), log.stat().st_mtime_ns) == before


@pytest.mark.slow
def test_one_failed_run_stops_no_other_and_is_named(done: tuple[Path, str]) -> None:
    out, _ = done
    folder = out / "runs" / "without-oct-seed0"
    kept = (folder / "config.yaml").read_text(encoding="utf-8")
    try:
        (folder / "config.yaml").write_text(kept.replace("seed: 0", "seed: 9"), encoding="utf-8")
        with pytest.raises(FederationError, match=r"1 of 2 runs failed \(without-oct-seed0: .*seed was 9 and is 0"):
            benchmark(settings(), out, 1, "auto", lambda line: None)
        assert {row["task"] for row in read(out / "rows.csv")} == {"fundus"}
    finally:
        (folder / "config.yaml").write_text(kept, encoding="utf-8")


def test_a_run_that_dies_is_reported_with_its_own_words(tmp_path: Path) -> None:
    own = settings(set=(*TINY, "methods.d24fad.teacher={name: resnet18, weights: nowhere.pth}"))
    run = plan(own)[0]
    said: list[str] = []
    failed = execute([run], tmp_path, Limits(1), said.append)
    assert list(failed) == [run.name]
    assert "nowhere.pth" in failed[run.name]
    assert said[-1].startswith(f"[1/1] {run.name}: ")
    assert "nowhere.pth" in (tmp_path / "logs" / f"{run.name}.txt").read_text(encoding="utf-8")
    assert not (run_folder(tmp_path, run.name) / "evaluation").exists()
