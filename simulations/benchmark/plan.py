"""What a benchmark is made of: its settings, and the config of every run."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from fed_fsad.config import Config, parse_config
from fed_fsad.data.build import server_samples
from fed_fsad.data.partition import check_names
from fed_fsad.data.phantoms import ORGANS, STYLES
from fed_fsad.data.samples import Sample
from fed_fsad.data.settings import Settings
from fed_fsad.data.signs import bundled_signs
from fed_fsad.errors import ConfigError, DataError

Arm = Literal["pooled", "local", "federated"]
Ablation = Literal["context_only", "no_signs"]
ABLATIONS: Mapping[str, dict[str, Any]] = {
    "context_only": {"trainable": ["context"]},
    "no_signs": {"signs_as": "names"},
}
"""SD-MAD trained with less: settings of the method by the ablation's name."""
OWN = ("methods", "federation", "data", "privacy", "threads", "engine")
"""Groups of a config that `--set` may change; the others are what the benchmark varies."""
POOL = 24
Fold = tuple[str, str | None, tuple[str, ...]]
"""What is left out: its name, the task, the categories."""


class BenchmarkSettings(Settings):
    """A benchmark: equal settings in the same version give equal tables."""

    method: Literal["d24fad", "sdmad"]
    tasks: dict[str, Path] = Field({})
    phantoms: tuple[str, ...] = ()
    shots: tuple[int, ...] = Field(min_length=1)
    seeds: int = Field(ge=1)
    draws: int = Field(ge=1)
    arms: tuple[Arm, ...] = ()
    hospitals: int = Field(1, ge=1)
    train: int | None = Field(None, ge=1)
    test: int | None = Field(None, ge=1)
    held_out: tuple[str, ...] = ()
    ablations: tuple[Ablation, ...] = ()
    set: tuple[str, ...] = ()

    @field_validator("shots")
    @classmethod
    def _positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 1:
            raise ValueError("K must be at least 1; correct --shots")
        return tuple(sorted(dict.fromkeys(value)))

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if bool(self.tasks) == bool(self.phantoms):
            raise ValueError("name either data sets, --task NAME=DIR, or phantom organs, --phantoms oct,fundus")
        if self.method == "d24fad" and len(self.names) < 2:
            raise ValueError("leaving one task out needs two tasks at least; name another")
        for line in self.set:
            if line.split(".")[0].split("=")[0] not in OWN:
                raise ValueError(f"--set {line}: a benchmark varies this itself; --set takes {', '.join(OWN)}")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks, sorted."""
        return tuple(sorted({*self.tasks, *self.phantoms}))


@dataclass(frozen=True)
class Planned:
    """One run. task: the one left out, None where all are trained on. ablation: what training lacks, or empty."""

    name: str
    seed: int
    task: str | None
    withheld: tuple[str, ...]
    ablation: str
    config: Config


def plan(settings: BenchmarkSettings) -> list[Planned]:
    """Every run, by seed, then by task or withheld categories.

    Raises ConfigError for a folder or name that does not exist, DataError when a task cannot serve its largest K.
    """
    for task, folder in settings.tasks.items():
        if not folder.is_dir():
            raise ConfigError(f"--task {task}={folder}: there is no such folder; check the path")
    check_names(settings.phantoms, ORGANS, "phantom organ")
    folds = _left_out(settings) if settings.method == "d24fad" else _withheld(settings)
    runs = [
        _planned(settings, seed, fold, ablation)
        for seed in range(settings.seeds)
        for fold in folds
        for ablation in ("", *settings.ablations)
    ]
    _check_supports(runs, settings)
    return runs


def _left_out(settings: BenchmarkSettings) -> list[Fold]:
    return [(f"without-{task}", task, ()) for task in settings.names]


def _withheld(settings: BenchmarkSettings) -> list[Fold]:
    """Categories withheld, run by run. `each`: the first category of every task, then the second of every task, ...; a
    task's only category is never withheld, for its hospitals would have nothing to learn.
    """
    if settings.held_out != ("each",):
        return [("all", None, settings.held_out)]
    own = _categories(_planned(settings, 0, ("all", None, ()), "").config)
    several = [names for names in own.values() if len(names) > 1]
    if not several:
        raise ConfigError("no task has two categories, so none can be held out; drop --held-out")
    turns = [{names[i] for names in several if i < len(names)} for i in range(max(map(len, several)))]
    return [(f"held-out-{i}", None, tuple(sorted(names))) for i, names in enumerate(turns, start=1)]


def _categories(config: Config) -> dict[str, list[str]]:
    """The categories of every task, sorted."""
    pool, test = _bed(config)
    found: dict[str, set[str]] = {}
    for sample in (*pool, *test):
        found.setdefault(sample.task, set()).update(sample.categories)
    return {task: sorted(names) for task, names in sorted(found.items())}


def _bed(config: Config) -> tuple[list[Sample], list[Sample]]:
    unseen = config.evaluation
    return server_samples(
        config.data, config.holdings, config.seed, frozenset(unseen.unseen_categories), unseen.unseen_task
    )


def _check_supports(runs: list[Planned], settings: BenchmarkSettings) -> None:
    """Raises DataError before anything is trained when a tested task has fewer normal images than K."""
    for run in runs:
        pool, _ = _bed(run.config)
        for task in settings.names if run.task is None else (run.task,):
            count = sum(sample.is_normal and sample.task == task for sample in pool)
            if count < max(settings.shots):
                kept = "" if run.task else " after the hospitals got theirs"
                raise DataError(
                    f"task {task!r} has {count} normal images to draw supports from{kept}, "
                    f"K = {max(settings.shots)} needs {max(settings.shots)}; add normal train images or lower --shots"
                )


def _planned(settings: BenchmarkSettings, seed: int, fold: Fold, ablation: str) -> Planned:
    label, task, withheld = fold
    name = "-".join(filter(None, (label, ablation.replace("_", "-"), f"seed{seed}")))
    raw = {
        "name": name,
        "seed": seed,
        "data": _data(settings),
        "hospitals": list(_hospitals(settings, task)),
        "methods": {settings.method: {**_signs(settings), **ABLATIONS.get(ablation, {})}},
        "evaluation": {
            "shots": settings.shots,
            "draws": settings.draws,
            "unseen_task": task,
            "unseen_categories": withheld,
            "each_draw": True,
        },
        "arms": [] if ablation else [arm for arm in ("pooled", "local") if arm in settings.arms],
    }
    config = parse_config(json.dumps(raw), "benchmark", settings.set)
    once = config.evaluation.model_copy(update={"every": config.federation.rounds})
    return Planned(name, seed, task, withheld, ablation, config.model_copy(update={"evaluation": once}))


def _data(settings: BenchmarkSettings) -> dict[str, Any]:
    pool = max(POOL, *settings.shots)
    if settings.tasks:
        tasks = {task: {"root": str(folder.expanduser().resolve())} for task, folder in sorted(settings.tasks.items())}
        return {"kind": "collection", "tasks": tasks, "pool": pool, "test_cap": settings.test}
    sizes = {"test_normal": settings.test, "test_abnormal": settings.test} if settings.test else {}
    return {"kind": "phantoms", "pool": pool, **sizes}


def _hospitals(settings: BenchmarkSettings, unseen: str | None) -> Iterator[dict[str, Any]]:
    """As many hospitals per task as asked for; those of phantoms have one of the generator's scanners each."""
    for number, task in enumerate(settings.names):
        for own in range(settings.hospitals):
            name = task if settings.hospitals == 1 else f"{task}-{own + 1}"
            if task == unseen:
                continue
            if settings.tasks:
                yield {"name": name, "holds": {"tasks": [task], "cap": settings.train}}
            else:
                yield {"name": name, "holds": _phantoms(settings, task, (number + own) % len(STYLES))}


def _phantoms(settings: BenchmarkSettings, organ: str, style: int) -> dict[str, Any]:
    sizes = {"normal": settings.train, "abnormal": settings.train} if settings.train else {}
    only_normals = {"abnormal": 0} if settings.method == "d24fad" else {}
    return {"organs": [organ], "style": style, **sizes, **only_normals}


def _signs(settings: BenchmarkSettings) -> dict[str, Any]:
    """The bundled sign lists of the tasks that have one; `--set methods.sdmad.signs=[...]` names others."""
    own = [task for task in settings.names if settings.tasks and task in bundled_signs()]
    return {"signs": own} if settings.method == "sdmad" and own else {}
