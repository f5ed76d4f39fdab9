"""A run's figures, copied as they happen to TensorBoard or MLflow; metrics.jsonl has them in any case."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from fed_fsad.errors import ConfigError
from fed_fsad.names import suggestion
from fed_fsad.progress import Progress
from fed_fsad.rundir import Event


class Tracker(Protocol):
    """Where figures go besides the run directory."""

    def figure(self, name: str, value: float, round_: int) -> None:
        """Keep one figure of one round; a round that is repeated replaces or follows its first try."""

    def close(self) -> None:
        """Write what is still held back."""


class TensorBoard:
    """TensorBoard files in RUN/tensorboard; show them with `tensorboard --logdir RUN/tensorboard`."""

    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"))

    def figure(self, name: str, value: float, round_: int) -> None:
        """As a scalar."""
        self._writer.add_scalar(name, value, round_)

    def close(self) -> None:
        """Flush the file."""
        self._writer.close()


class Mlflow:
    """The MLflow store that MLFLOW_TRACKING_URI names, else RUN/mlflow.db; a resumed run goes on in its MLflow run."""

    def __init__(self, run: Path) -> None:
        from mlflow.tracking import MlflowClient

        logging.getLogger("mlflow").setLevel(logging.WARNING)
        store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.resolve() / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=store)
        self._run = self._open("fed_fsad", run)

    def _open(self, experiment: str, run: Path) -> str:
        found = self._client.get_experiment_by_name(experiment)
        home = found.experiment_id if found else self._client.create_experiment(experiment)
        tag = str(run.resolve())
        earlier = self._client.search_runs([home], filter_string=f"tags.run_directory = '{tag}'", max_results=1)
        if earlier:
            self._client.update_run(earlier[0].info.run_id, status="RUNNING")
            return str(earlier[0].info.run_id)
        made = self._client.create_run(home, run_name=run.name, tags={"run_directory": tag})
        return str(made.info.run_id)

    def figure(self, name: str, value: float, round_: int) -> None:
        """As a metric whose step is the round."""
        self._client.log_metric(self._run, name, value, step=round_)

    def close(self) -> None:
        """End the MLflow run."""
        self._client.set_terminated(self._run)


TRACKERS: Mapping[str, Callable[[Path], Tracker]] = {"tensorboard": TensorBoard, "mlflow": Mlflow}


class Tracked:
    """A progress that also hands every figure to trackers; they open with the run and close with it."""

    def __init__(self, progress: Progress, names: Sequence[str], run: Path) -> None:
        """Raises ConfigError for a tracker that does not exist."""
        for name in names:
            if name not in TRACKERS:
                raise ConfigError(f"--track {name}: there is no such tracker; {suggestion(name, TRACKERS)}")
        self._progress = progress
        self._names = tuple(dict.fromkeys(names))
        self._run = run
        self._open = ExitStack()
        self._trackers: list[Tracker] = []

    def __call__(self, event: Event) -> None:
        self._progress(event)
        for name, value in figures_of(event):
            for tracker in self._trackers:
                tracker.figure(name, value, int(event.get("round") or 0))

    def __enter__(self) -> Self:
        """Raises ConfigError when a tracker's package is not installed."""
        with ExitStack() as opening:
            for name in self._names:
                tracker = _made(name, self._run)
                opening.callback(tracker.close)
                self._trackers.append(tracker)
            opening.enter_context(self._progress)
            self._open = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)


def figures_of(event: Event) -> Iterator[tuple[str, float]]:
    """The finite figures of an event by a name with slashes: site/NAME/METHOD/loss, evaluation/METHOD/4, ..."""
    match event["kind"]:
        case "round":
            yield from _named("round", event, ("seconds", "bytes_up", "bytes_down", "replies"))
        case "site":
            yield from _named(f"site/{event['site']}", event, ("epsilon", "seconds"))
            for method, figures in event.get("methods", {}).items():
                yield from _named(f"site/{event['site']}/{method}", figures, tuple(figures))
        case "evaluation":
            yield from _scores(f"evaluation/{event['method']}", event)
        case "arm":
            yield from _scores(f"{event['arm']}/{event.get('site') or 'all'}/{event['method']}", event)
        case "baseline":
            yield from _scores(f"baseline/{event['name']}/{event['method']}", event)


def _scores(prefix: str, event: Event) -> Iterator[tuple[str, float]]:
    yield from _named(prefix, event["image_auroc"], tuple(event["image_auroc"]))
    yield from _named(prefix, event, ("average_precision", "pixel_auroc", "pixel_aupro"))


def _named(prefix: str, figures: Mapping[str, Any], keys: Sequence[str]) -> Iterator[tuple[str, float]]:
    for key in keys:
        if figures.get(key) is not None:
            yield f"{prefix}/{key}", float(figures[key])


def _made(name: str, run: Path) -> Tracker:
    run.mkdir(parents=True, exist_ok=True)
    try:
        return TRACKERS[name](run)
    except ImportError as error:
        raise ConfigError(
            f"--track {name} needs a package that is not here; pip install 'fed-fsad[tracking]'"
        ) from error
