"""One row of an audit: what was claimed, what an attack found, the same attack where it must succeed, a verdict."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from fed_fsad.privacy.audit.subject import Subject

Figures = Mapping[str, float | None]

HOLDS = "does not contradict the claim"
REFUTED = "refutes the claim"
POWERLESS = "no power here: control not found"
UNCLAIMED = "no claim: what an unprotected update shows"


@dataclass(frozen=True)
class Finding:
    """A row; texts for a person, figures for a program.

    claimed: what the terms promise of this attack's result. found: its result under the terms, a lower bound or an
    interval. control: its result without noise, or with a defect.
    """

    check: str
    method: str
    terms: str
    claimed: str
    found: str
    control: str
    verdict: str
    note: str = ""
    figures: Figures = field(default_factory=dict)


def row(
    subject: Subject,
    check: str,
    *,
    claimed: str,
    found: str,
    control: str,
    refuted: bool,
    powerful: bool,
    note: str = "",
    figures: Figures,
) -> Finding:
    """The row of a check, with the verdict that follows.

    refuted: the least that was found is more than the claim allows. powerful: the control was found. Without terms the
    control is all there is to tell.
    """
    verdict = REFUTED if refuted else HOLDS if powerful else POWERLESS
    if subject.terms is None:
        claimed, found, verdict = "nothing", "–", UNCLAIMED if powerful else POWERLESS
    finite = {name: value if value is None or math.isfinite(value) else None for name, value in figures.items()}
    return Finding(check, subject.ground.method.name, subject.described, claimed, found, control, verdict, note, finite)
