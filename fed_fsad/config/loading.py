"""From YAML and `--set key=value` to a checked Config."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fed_fsad import methods
from fed_fsad.config.schema import Config
from fed_fsad.data.settings import CollectionData, DataSettings, FolderData
from fed_fsad.errors import ConfigError
from fed_fsad.explain import explain
from fed_fsad.quick_yaml import Loader


class _StrictLoader(Loader):
    """YAML in which a key written twice is an error instead of a silent overwrite."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                break  # the loader itself says what is wrong with such a key
            if key in seen:
                line = key_node.start_mark.line + 1
                raise ConfigError(f"line {line}: the key {key!r} is written twice; keep one of them")
            seen.add(key)
        return super().construct_mapping(node, deep)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The config in the YAML file `path` with `key=value` overrides on top.

    Raises ConfigError, one sentence that names the file, the key and the nearest right one.
    """
    return parse_config(_text(path), str(path), overrides)


def load_mapping(path: Path) -> dict[str, Any]:
    """The keys and values in the YAML file `path`, as they are written. Raises ConfigError."""
    return _mapping(_text(path), str(path))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: the config cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: the config is not UTF-8 text; save it as UTF-8") from error


def parse_config(text: str, origin: str, overrides: Sequence[str] = ()) -> Config:
    """Like load_config, from text; `origin` is what messages call it."""
    raw = _mapping(text, origin)
    for override in overrides:
        _apply(raw, override)
    return _validated(raw, origin)


def _mapping(text: str, origin: str) -> dict[str, Any]:
    try:
        raw = yaml.load(text, _StrictLoader)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: not valid YAML ({' '.join(str(error).split())}); mend that line") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{origin}: the config must be a list of `key: value` lines; see configs/demo.yaml")
    return raw


def resolved_yaml(config: Config) -> str:
    """The whole config with every default filled in; `parse_config` gives the same Config back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def _validated(raw: dict[str, Any], origin: str) -> Config:
    blocks = raw.get("methods")
    settings: Any = blocks
    if isinstance(blocks, Mapping):
        settings = {}
        for name, block in blocks.items():
            try:
                kind = methods.settings_type(str(name))
            except ConfigError as error:
                raise ConfigError(f"{origin}: methods.{name}: {error}") from error
            try:
                settings[name] = kind.model_validate({} if block is None else block)
            except ValidationError as error:
                raise ConfigError(f"{origin}: {explain(error, kind, ('methods', str(name)))}") from error
    try:
        config = Config.model_validate({**raw, "methods": settings})
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error, Config)}") from error
    return config.model_copy(update={"data": _located(config.data)})


def _located(data: DataSettings) -> DataSettings:
    """The same data under absolute paths."""
    if isinstance(data, FolderData):
        return data.model_copy(update={"root": data.root.expanduser().resolve()})
    if isinstance(data, CollectionData):
        return data.model_copy(update={"tasks": {task: _located(own) for task, own in data.tasks.items()}})
    return data


def _apply(raw: dict[str, Any], override: str) -> None:
    """Set one dotted key; list items are called by their position or by their `name`."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"--set {override}: write it as key=value, e.g. --set federation.rounds=3")
    try:
        value = yaml.load(text, _StrictLoader)
    except ConfigError as error:
        raise ConfigError(f"--set {override}: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML; quote it") from error
    target: Any = raw
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        if isinstance(target, list):
            index: Any = _position(target, key, override)
        elif isinstance(target, dict):
            index = key
            if not last and not isinstance(target.get(key), dict | list):
                target[key] = {}
        else:
            raise ConfigError(f"--set {override}: {'.'.join(keys[:depth])} holds a value, not keys; check the path")
        if last:
            target[index] = value
        else:
            target = target[index]


def _position(items: list[Any], key: str, override: str) -> int:
    if key.isdecimal() and int(key) < len(items):
        return int(key)
    names = [item.get("name") if isinstance(item, dict) else None for item in items]
    if key in names:
        return names.index(key)
    known = ", ".join(str(name) for name in names if name) or f"0 to {len(items) - 1}"
    raise ConfigError(f"--set {override}: there is no item {key!r} in that list; choose one of {known}")
