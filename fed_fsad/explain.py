"""A validation error as one sentence: which key, what is wrong, and the nearest right name."""

import types
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from fed_fsad.names import suggestion

Location = tuple[int | str, ...]
LONGEST_VALUE = 80


def explain(error: ValidationError, model: type[BaseModel], prefix: tuple[str, ...] = ()) -> str:
    """The first problem of `error` in one sentence; `prefix` is where `model` stands in the file."""
    first = error.errors()[0]
    location: Location = first["loc"]
    key = _dotted((*prefix, *_without_tags(model, location)))
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}; {suggestion(str(location[-1]), _keys_at(model, location[:-1]))}"
    if first["type"] == "missing":
        return f"the key {key!r} is missing; add it"
    if first["type"] == "value_error":
        sentence = str(first["ctx"]["error"])
        return f"{key}: {sentence}" if key else sentence
    message = str(first["msg"])
    said = f"{message[0].lower()}{message[1:]}, but it is {_brief(first['input'])}; change it"
    return f"{key}: {said}" if key else said


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def _dotted(location: Location) -> str:
    return ".".join(str(step) for step in location)


def _unions(kind: Any) -> tuple[Any, ...]:
    """The alternatives of an annotation, Annotated and | undone."""
    if get_origin(kind) is Annotated:
        return _unions(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(option for part in get_args(kind) for option in _unions(part))
    return (kind,)


def _step(kinds: tuple[Any, ...], step: int | str) -> tuple[tuple[Any, ...], bool]:
    """Types found one step further down, and whether the step was a union's tag rather than a key of the file."""
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, BaseModel) and step in kind.model_fields:
            return _unions(kind.model_fields[str(step)].annotation), False
        if get_origin(kind) in (tuple, list) and isinstance(step, int):
            return _unions(get_args(kind)[0]), False
        if isinstance(step, str) and get_origin(kind) is dict:
            return _unions(get_args(kind)[1]), False
    tagged = tuple(
        kind
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, BaseModel) and "kind" in kind.model_fields
        if step in get_args(kind.model_fields["kind"].annotation)
    )
    return tagged, bool(tagged)


def _without_tags(model: type[BaseModel], location: Location) -> Location:
    kinds: tuple[Any, ...] = (model,)
    kept: list[int | str] = []
    for step in location:
        kinds, tag = _step(kinds, step)
        if not tag:
            kept.append(step)
    return tuple(kept)


def _keys_at(model: type[BaseModel], location: Location) -> list[str]:
    kinds: tuple[Any, ...] = (model,)
    for step in location:
        kinds, _ = _step(kinds, step)
    return sorted(
        {name for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel) for name in kind.model_fields}
    )
