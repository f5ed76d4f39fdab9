"""Figures reach TensorBoard and MLflow as they happen; read back with those programs' own readers."""

import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fed_fsad.errors import ConfigError
from fed_fsad.progress import PlainProgress
from fed_fsad.rundir import Event
from fed_fsad.tracking import Tracked, figures_of

SITE: Event = {
    "kind": "site", "round": 2, "site": "north", "status": "ok", "seconds": 1.5, "epsilon": None,
    "methods": {"d24fad": {"loss": 0.5, "examples": 24}},
}  # fmt: skip
ROUND: Event = {
    "kind": "round", "round": 2, "seconds": 3.0, "bytes_up": 10, "bytes_down": 20, "replies": 3, "rejected": {},
}  # fmt: skip
EVALUATION: Event = {
    "kind": "evaluation", "round": 2, "method": "d24fad", "image_auroc": {"2": 0.75, "4": None},
    "average_precision": 0.5, "pixel_auroc": None, "pixel_aupro": None,
}  # fmt: skip
WANTED = {
    "site/north/seconds": 1.5, "site/north/d24fad/loss": 0.5, "site/north/d24fad/examples": 24.0,
    "round/seconds": 3.0, "round/bytes_up": 10.0, "round/bytes_down": 20.0, "round/replies": 3.0,
    "evaluation/d24fad/2": 0.75, "evaluation/d24fad/average_precision": 0.5,
}  # fmt: skip


def test_every_figure_has_a_name_and_what_is_undefined_has_none() -> None:
    found = [pair for event in (SITE, ROUND, EVALUATION) for pair in figures_of(event)]
    assert len(found) == len(dict(found))
    assert dict(found) == WANTED


def test_arms_and_baselines_are_told_apart() -> None:
    arm = {**EVALUATION, "kind": "arm", "arm": "local", "site": "north"}
    pooled = {**arm, "arm": "pooled", "site": None}
    baseline = {**EVALUATION, "kind": "baseline", "name": "knn"}
    names = [next(iter(figures_of(event)))[0] for event in (arm, pooled, baseline)]
    assert names == ["local/north/d24fad/2", "pooled/all/d24fad/2", "baseline/knn/d24fad/2"]
    assert list(figures_of({"kind": "warning", "text": "late"})) == []


def track(names: list[str], run: Path) -> None:
    with Tracked(PlainProgress(), names, run) as progress:
        for event in (SITE, ROUND, EVALUATION):
            progress(event)


def test_tensorboard_reads_back_what_was_told(tmp_path: Path) -> None:
    track(["tensorboard"], tmp_path / "run")
    reader = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    reader.Reload()
    found = {tag: (reader.Scalars(tag)[0].value, reader.Scalars(tag)[0].step) for tag in reader.Tags()["scalars"]}
    assert found == {name: (value, 2) for name, value in WANTED.items()}


def test_mlflow_reads_back_what_was_told_and_a_resumed_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    track(["mlflow"], tmp_path / "run")
    track(["mlflow"], tmp_path / "run")
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'run' / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'fed_fsad'")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics == WANTED
    assert run.info.status == "FINISHED"
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "round/seconds")] == [2, 2]


def test_the_progress_beneath_is_shown_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Tracked(PlainProgress(), [], tmp_path) as progress:
        progress(ROUND)
    assert capsys.readouterr().out.startswith("round 2: 3 replies")


def test_an_unknown_tracker_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tensorbord.*tensorboard"):
        Tracked(PlainProgress(), ["tensorbord"], tmp_path)


def test_a_missing_package_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'fed-fsad\[tracking\]'"),
        Tracked(PlainProgress(), ["mlflow"], tmp_path),
    ):
        pass
