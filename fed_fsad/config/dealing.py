"""The list of hospitals that a partition makes, and whether it goes with the data."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from fed_fsad.data.plan import PartitionSettings
from fed_fsad.data.settings import SITE, DataSettings
from fed_fsad.names import suggestion


def with_hospitals(raw: Any) -> Any:
    """A config as read, its hospitals filled in from `partition` if it has one.

    What stands under hospitals already says who differs in role or policy: a list with names, or a mapping by name;
    what `every` says there holds for all who do not say otherwise. Raises ValueError for a hospital that the partition
    does not make.
    """
    plan = raw.get("partition") if isinstance(raw, dict) else None
    if plan is None:
        return raw
    try:
        names = PartitionSettings.model_validate(plan).names
    except ValidationError:
        names = ("site-01",)  # the partition itself is what is wrong, and its own field says so
        return {**raw, "hospitals": [{"name": name} for name in names]}
    stated = _by_name(raw.get("hospitals") or {})
    every = stated.pop("every", {})
    for name in stated:
        if name not in names:
            raise ValueError(f"hospitals: partition makes no hospital {name!r}; {suggestion(str(name), names)}")
        if isinstance(stated[name], Mapping) and stated[name].get("holds") is not None:
            raise ValueError(f"hospitals: {name!r} is dealt its images by partition; take out its holds")
    return {**raw, "hospitals": [{**every, **stated.get(name, {}), "name": name} for name in names]}


def misfit(plan: PartitionSettings, data: DataSettings) -> str | None:
    """What of a partition does not go with the data, in one sentence from the key on, or None."""
    if data.kind != "phantoms" and (key := plan.phantom_key):
        return f"{key} is for phantoms; take it out"
    if plan.by != "column":
        return None
    if data.kind == "phantoms":
        return "by: column needs a manifest, and phantoms have none; choose another one"
    for own in data.tasks.values() if data.kind == "collection" else (data,):
        known = (SITE, *own.columns)
        if plan.column not in known:
            return f"column: {plan.column!r} is not listed under data.columns; {suggestion(plan.column, known)}"
    return None


def _by_name(hospitals: Any) -> dict[Any, Any]:
    if isinstance(hospitals, Mapping):
        return dict(hospitals)
    plain = [one if isinstance(one, Mapping) else one.model_dump() for one in hospitals]
    return {one.get("name"): one for one in plain}
