"""Shipped configs still give the committed figures; new weights, or a change that is meant: `make golden`."""

import json
import math
from collections.abc import Mapping

import pytest

from tests.golden import CASES, CONFIGS, FOLDER, TOLERANCE, Case, measured


def moved(old: Mapping[str, float | None], new: Mapping[str, float | None]) -> list[str]:
    """What is new, gone, or further off than the tolerance."""
    found = [f"{name}: is no figure any more" for name in sorted(set(old) - set(new))]
    found += [f"{name}: has no golden figure" for name in sorted(set(new) - set(old))]
    for name in sorted(set(old) & set(new)):
        before, now = (math.nan if own[name] is None else float(own[name] or 0.0) for own in (old, new))
        same = math.isnan(before) and math.isnan(now)
        if not same and not abs(before - now) <= TOLERANCE:
            found.append(f"{name}: was {before:.3f}, is {now:.3f}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_figures_are_the_golden_ones(case: Case) -> None:
    golden, found = json.loads(case.file.read_text(encoding="utf-8")), measured(case)
    assert found["overrides"] == golden["overrides"], "other settings than the golden figures': run `make golden`"
    assert found["bytes"] == golden["bytes"]
    assert not moved(golden["figures"], found["figures"]), "if that is meant, run `make golden` and commit"


def test_every_phantom_config_has_golden_figures() -> None:
    phantoms = {path.name for path in CONFIGS.glob("*.yaml") if "kind: phantoms" in path.read_text(encoding="utf-8")}
    assert phantoms <= {case.config for case in CASES}
    assert {case.file for case in CASES} == set(FOLDER.glob("*.json"))


def test_a_figure_that_moved_would_be_noticed() -> None:
    old = {"a": 0.5, "b": None, "c": 1.0}
    assert moved(old, {"a": 0.515, "b": None, "c": 1.0}) == []
    assert moved(old, {"a": 0.53, "b": 0.5, "d": 1.0}) == [
        "c: is no figure any more", "d: has no golden figure", "a: was 0.500, is 0.530", "b: was nan, is 0.500",
    ]  # fmt: skip
