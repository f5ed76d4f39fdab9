"""Detectors by name. A folder here that exports `Settings` and `build` is a method; nothing else has to be told."""

import importlib
import pkgutil
from types import ModuleType

from fed_fsad.errors import ConfigError
from fed_fsad.methods.method import Method, TrainingSettings


def names() -> tuple[str, ...]:
    """The methods this installation has, sorted."""
    return tuple(sorted(info.name for info in pkgutil.iter_modules(__path__) if info.ispkg))


def _package(name: str) -> ModuleType:
    if name not in names():
        raise ConfigError(f"there is no method {name!r}; choose one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")


def settings_type(name: str) -> type[TrainingSettings]:
    """The settings class of a method. Raises ConfigError for an unknown name."""
    kind: type[TrainingSettings] = _package(name).Settings
    return kind


def build(name: str, settings: TrainingSettings, seed: int) -> Method:
    """A freshly initialised method: frozen weights loaded and checked, trainable part drawn from `seed`."""
    method: Method = _package(name).build(settings, seed)
    return method
