"""Detectors by name. A folder here that exports `Settings` and `build` is a method; nothing else has to be told.

It may export `concern`, too: from the diagnostics of a training to a warning; and `NORMALISATION`: its parts that hold
nothing but the scales and shifts of normalisation layers.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from types import ModuleType

from fed_fsad.errors import ConfigError
from fed_fsad.methods.method import Method, TrainingSettings, part_of
from fed_fsad.names import suggestion


def names() -> tuple[str, ...]:
    """The methods this installation has, sorted."""
    return tuple(sorted(info.name for info in pkgutil.iter_modules(__path__) if info.ispkg))


@cache
def _package(name: str) -> ModuleType:
    if name not in names():
        raise ConfigError(f"there is no method {name!r}; choose one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")


def settings_type(name: str) -> type[TrainingSettings]:
    """The settings class of a method. Raises ConfigError for an unknown name."""
    kind: type[TrainingSettings] = _package(name).Settings
    return kind


def concern(name: str, figures: Mapping[str, float]) -> str | None:
    """What a method's package finds wrong with a training that left these diagnostics, with the remedy, or None.

    Raises ConfigError for an unknown name.
    """
    package = _package(name)
    text: str | None = package.concern(figures) if hasattr(package, "concern") else None
    return text


def normalisation(name: str) -> tuple[str, ...]:
    """The parts of a method that are scales and shifts of normalisation layers: what FedBN leaves at the sites.

    Raises ConfigError for an unknown name.
    """
    parts: tuple[str, ...] = getattr(_package(name), "NORMALISATION", ())
    return parts


def build(name: str, settings: TrainingSettings, seed: int) -> Method:
    """A freshly initialised method: frozen weights loaded and checked, trainable part drawn from `seed`.

    Raises ConfigError for local parts that the method does not have, or when nothing else would be left to travel.
    """
    method: Method = _package(name).build(settings, seed)
    parts = {part_of(tensor) for tensor in method.trainable()}
    for part in settings.local_parts:
        if part not in parts:
            raise ConfigError(f"methods.{name}.local_parts: {name} has no part {part!r}; {suggestion(part, parts)}")
    if parts <= set(settings.local_parts):
        raise ConfigError(f"methods.{name}.local_parts: all parts stay at the sites; leave one out so that it travels")
    return method
