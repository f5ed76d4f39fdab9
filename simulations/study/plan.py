"""The cells of a study: one config for every combination of the grid and every seed."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import yaml

from fed_fsad.config import Config, parse_config
from fed_fsad.errors import ConfigError
from simulations.study.settings import Combo, StudySettings, slug

LONGEST = 64

Labels = Mapping[str, str]
"""What a cell has of every axis."""


@dataclass(frozen=True)
class Cell:
    """One run."""

    name: str
    seed: int
    labels: Labels
    config: Config

    @property
    def point(self) -> tuple[str, ...]:
        """Its place in the grid, whatever the seed."""
        return tuple(self.labels.values())


def plan(settings: StudySettings, origin: str) -> list[Cell]:
    """Every cell, by base, then by the axes in the order of the file, then by seed; `origin` is what messages call it.

    Raises ConfigError that names the first cell whose config cannot be, or says that none is left.
    """
    cells = [_cell(settings, origin, labels, seed) for labels in _points(settings) for seed in settings.seeds]
    if not cells:
        raise ConfigError(f"{origin}: `only` and `skip` leave no cell; loosen them")
    names = [cell.name for cell in cells]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"{origin}: two cells would be called {twice!r}; name the values of that axis apart")
    return cells


def _points(settings: StudySettings) -> Iterator[Labels]:
    axes = settings.axes
    for values in product(*axes.values()):
        labels = dict(zip(axes, values, strict=True))
        if settings.only and not any(_matches(labels, combo) for combo in settings.only):
            continue
        if not any(_matches(labels, combo) for combo in settings.skip):
            yield labels


def _matches(labels: Labels, combo: Combo) -> bool:
    return all(labels[axis] in values for axis, values in combo.items())


def _cell(settings: StudySettings, origin: str, labels: Labels, seed: int) -> Cell:
    name = _name(labels, seed)
    base = settings.bases[labels.get("base", next(iter(settings.bases)))]
    chosen = [pair for axis, bundles in settings.grid.items() for pair in bundles[labels[axis]].items()]
    arms = [arm for arm in settings.arms if arm != "federated"]
    forced = {"name": name, "seed": seed, "arms": arms, "evaluation.each_draw": True}
    overrides = [
        "threads=1",
        *(_override(key, value) for key, value in (*settings.set.items(), *chosen)),
        *settings.overrides,
        *(_override(key, value) for key, value in forced.items()),
    ]
    config = parse_config(yaml.safe_dump(base, sort_keys=False), f"{origin}, cell {name}", overrides)
    once = config.evaluation.model_copy(update={"every": config.federation.rounds})
    return Cell(name, seed, labels, config.model_copy(update={"evaluation": once}))


def _override(key: str, value: object) -> str:
    """As --set takes it."""
    return f"{key}={yaml.safe_dump([value], default_flow_style=True, width=10**6).strip()[1:-1]}"


def _name(labels: Labels, seed: int) -> str:
    """Of the labels, each with the last word of its axis where it does not speak for itself; short enough for a run."""
    words = [own if own[0].isalpha() else f"{axis.rsplit('.', 1)[-1]}-{own}" for axis, own in labels.items()]
    name = "_".join([*map(slug, words), f"seed{seed}"])
    if len(name) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: LONGEST - 9 - len(str(seed)) - 6]}-{digest}_seed{seed}"
