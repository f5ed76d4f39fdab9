"""A study file: base configs, a grid of settings, seeds, arms, and which figures answer the question."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from fed_fsad.config import load_mapping
from fed_fsad.data.settings import Name, Settings
from fed_fsad.errors import ConfigError
from fed_fsad.explain import explain
from fed_fsad.names import suggestion

Arm = Literal["federated", "pooled", "local"]
Bundle = dict[str, Any]
"""Settings by dotted key."""
Combo = dict[str, tuple[str, ...]]
"""Labels by axis."""
MEASURED = ("shots", "bytes")
"""What a plot can be drawn against beside the grid: K, and the bytes that travelled."""


class StudySettings(Settings):
    """A study as it is carried out: equal settings in the same version of the code give equal tables."""

    name: str = Field(pattern=Name, description="what the study is called")
    question: str = Field("", description="what it asks; stands above its report")
    bases: dict[str, Bundle] = Field(
        min_length=1, description="configs to start from, by name: paths from the study's folder, or whole configs"
    )
    grid: dict[str, dict[str, Bundle]] = Field(
        {},
        description="by axis: values of a config key (`key: [1, 2]`), or named bundles (`axis: {name: {key: 1}}`)",
    )
    only: tuple[Combo, ...] = Field((), description="of the grid only cells that match one of these: values by axis")
    skip: tuple[Combo, ...] = Field((), description="cells that match one of these are left out")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="seeds, or how many of them, from 0 on")
    arms: tuple[Arm, ...] = Field(
        ("federated", "pooled", "local"), description="what is trained in every cell; federated always is"
    )
    figures: tuple[str, ...] = Field((), description="figures to report; none = each method's headline")
    axis: str | None = Field(
        None, description="what plots are drawn against: an axis of the grid, `shots` or `bytes`; null = the first axis"
    )
    set: Bundle = Field({}, description="settings by dotted key, on top of the bases and below the grid")
    overrides: tuple[str, ...] = Field((), description="`key=value` above all else: what --set adds")

    @field_validator("grid", mode="before")
    @classmethod
    def _bundled(cls, raw: Any) -> Any:
        """A list of values becomes bundles of one setting each, named after the value."""
        if not isinstance(raw, Mapping):
            return raw
        if not raw:
            raise ValueError("the grid is empty; name a config key and its values, or drop `grid`")
        return {str(axis): _bundles(str(axis), values) for axis, values in raw.items()}

    @field_validator("only", "skip", mode="before")
    @classmethod
    def _labelled(cls, raw: Any) -> Any:
        if not isinstance(raw, Sequence) or not all(isinstance(combo, Mapping) for combo in raw):
            return raw
        listed = [{str(axis): own if isinstance(own, list) else [own] for axis, own in combo.items()} for combo in raw]
        return [{axis: [label(value) for value in own] for axis, own in combo.items()} for combo in listed]

    @field_validator("seeds", mode="before")
    @classmethod
    def _counted(cls, raw: Any) -> Any:
        return tuple(range(raw)) if isinstance(raw, int) and not isinstance(raw, bool) else raw

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for combo in (*self.only, *self.skip):
            for axis, labels in combo.items():
                if axis not in self.axes:
                    raise ValueError(f"only and skip name the axis {axis!r}; {suggestion(axis, self.axes)}")
                for one in labels:
                    if one not in self.axes[axis]:
                        raise ValueError(f"axis {axis!r} has no value {one!r}; {suggestion(one, self.axes[axis])}")
        if self.axis is not None and self.axis not in (*self.axes, *MEASURED):
            raise ValueError(f"axis: {self.axis!r} is none; {suggestion(self.axis, (*self.axes, *MEASURED))}")
        return self

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """The labels of every axis; several bases are one, too."""
        bases = {"base": tuple(self.bases)} if len(self.bases) > 1 else {}
        return {**bases, **{axis: tuple(bundles) for axis, bundles in self.grid.items()}}

    @property
    def drawn(self) -> str:
        """What plots are drawn against."""
        return self.axis or next(iter(self.axes), "shots")


def load_study(path: Path, overrides: Sequence[str] = (), base: Path | None = None) -> StudySettings:
    """The study in the YAML file `path`, its base configs read in, or `base` in their place.

    Raises ConfigError with the key and a remedy.
    """
    raw = load_mapping(path)
    if ("base" in raw) == ("bases" in raw):
        raise ConfigError(f"{path}: state either `base`, a config, or `bases`, several by name")
    several = raw.pop("bases") if "bases" in raw else {"base": raw.pop("base")}
    if base is not None:
        raw["bases"] = {"base": load_mapping(base)}
    elif isinstance(several, dict):
        raw["bases"] = {str(name): _base(own, path) for name, own in several.items()}
    else:
        raw["bases"] = several
    try:
        return StudySettings.model_validate({**raw, "overrides": [*(raw.get("overrides") or ()), *overrides]})
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, StudySettings)}") from error


def _base(own: Any, study: Path) -> Any:
    return load_mapping(study.parent / own) if isinstance(own, str) else own


def label(value: Any) -> str:
    """What a value of the grid is called."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return "+".join(map(label, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value) or "empty"


def _bundles(axis: str, values: Any) -> Any:
    if isinstance(values, Mapping):
        named = {label(name): {} if own is None else own for name, own in values.items()}
    elif not isinstance(values, list | tuple):
        raise ValueError(f"{axis} needs a list of values, e.g. `{axis}: [1, 2]`, or named bundles of settings")
    elif any(isinstance(value, Mapping) for value in values):
        raise ValueError(f"{axis} has groups of keys for values; give each a name, `{axis}: {{name: {{key: value}}}}`")
    else:
        named = {label(value): {axis: value} for value in values}
    if not named:
        raise ValueError(f"{axis} has no values; list one at least, or drop it")
    if len(named) < len(values):
        raise ValueError(f"{axis} holds a value twice; keep one of them")
    return named


def slug(text: str) -> str:
    """A label as part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9.+]+", "-", text.replace("∞", "inf")).strip("-.") or "x"
