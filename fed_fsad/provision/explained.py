"""A settings model as YAML for a person: every key with its meaning above it, its value from the model's default."""

import textwrap
import typing
from collections.abc import Collection, Mapping
from typing import Any, Literal

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

WIDTH = 118


def explained(
    model: type[BaseModel], values: Mapping[str, Any], meanings: Mapping[str, str], silent: Collection[str] = ()
) -> str:
    """YAML of `model` with `values` in place of defaults; required keys must stand in `values`.

    meanings: in place of the model's descriptions. silent: keys that are commented out, to be stated by the reader.
    """
    blocks = []
    for name, field in model.model_fields.items():
        value = values[name] if name in values else field.get_default()
        meaning = meanings.get(name) or _meaning(field)
        if isinstance(value, BaseModel):
            inner = textwrap.indent(explained(type(value), value.model_dump(mode="json"), {}), "  ")
            blocks.append(f"{_comment(meaning)}{name}:\n{inner}")
        else:
            off = "# " if name in silent else ""
            blocks.append(f"{_comment(meaning)}{off}{name}: {_scalar(value)}\n")
    return "\n".join(blocks)


def commented(text: str) -> str:
    """A block of YAML turned into comments, blank lines left out."""
    return "".join(f"# {line}\n" for line in text.splitlines() if line.strip())


def _meaning(field: FieldInfo) -> str:
    choices = _choices(field.annotation)
    allowed = f"one of {', '.join(choices)}" if len(choices) > 1 else ""
    said = "; ".join(part for part in (field.description or "", allowed) if part)
    return f"{said[:1].upper()}{said[1:]}." if said else ""


def _choices(kind: Any) -> list[str]:
    if typing.get_origin(kind) is Literal:
        return [str(value) for value in typing.get_args(kind)]
    return [choice for part in typing.get_args(kind) for choice in _choices(part)]


def _comment(meaning: str) -> str:
    return "".join(f"# {line}\n" for line in textwrap.wrap(meaning, WIDTH - 4, break_on_hyphens=False))


def _scalar(value: Any) -> str:
    """A value on one line, as YAML."""
    return (
        yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10_000).removesuffix("...\n").strip()
    )
