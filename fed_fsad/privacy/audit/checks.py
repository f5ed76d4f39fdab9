"""The checks of an audit by name, and which of them a method can be asked."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

from fed_fsad.errors import ConfigError
from fed_fsad.methods.d24fad.detector import D24FAD
from fed_fsad.methods.method import Method, part_of
from fed_fsad.methods.sdmad.detector import SdMad
from fed_fsad.names import suggestion
from fed_fsad.privacy.audit.finding import Finding, row
from fed_fsad.privacy.audit.ground import Tell
from fed_fsad.privacy.audit.guessing import SHADOWS, canaries, lira
from fed_fsad.privacy.audit.matching import matching
from fed_fsad.privacy.audit.mechanism import ScaledNoise, mechanism_audit
from fed_fsad.privacy.audit.sensitivity import isolation, noise, removal
from fed_fsad.privacy.audit.span import PART, span
from fed_fsad.privacy.audit.subject import Subject

Check = Callable[[Subject, Tell], Finding]
OnCheck = Callable[[str, int, int], None]
"""Called with (what is being checked, done, in all)."""


def mechanism(subject: Subject, tell: Tell) -> Finding:
    """Dirac canaries in one private step of all of the budget; control: halved noise."""
    source = subject.noise("mechanism")
    found = mechanism_audit(subject.epsilon, subject.delta, noise=source, clip_norm=subject.clip_norm)
    tell(1, 2)
    halved = ScaledNoise(source, 0.5)
    control = mechanism_audit(subject.epsilon, subject.delta, noise=halved, clip_norm=subject.clip_norm)
    tell(2, 2)
    return row(
        subject,
        "mechanism",
        claimed=f"ε = {subject.epsilon:.3g}",
        found=f"ε ≥ {found.found:.2f}",
        control=f"ε ≥ {control.found:.2f} with halved noise",
        refuted=found.refuted,
        powerful=control.refuted,
        note=f"{found.canaries} canaries in, as many out",
        figures={"claimed": subject.epsilon, "found": found.found, "control": control.found},
    )


CHECKS: dict[str, Check] = {
    "mechanism": mechanism,
    "removal": removal,
    "isolation": isolation,
    "noise": noise,
    "canaries": canaries,
    "lira": lira,
    "span": span,
    "matching": matching,
}
OF_A_PROMISE = ("mechanism", "removal", "isolation", "noise")
"""Checks of the private step itself: without terms there is nothing to look at."""


def applicable(method: Method, protected: bool) -> tuple[str, ...]:
    """The checks that can be made of a method, with terms or without."""
    adapted = isinstance(method, SdMad) and any(part_of(name) == PART for name in method.trainable())
    special = {"span": adapted, "matching": isinstance(method, D24FAD)}
    return tuple(name for name in CHECKS if special.get(name, protected or name not in OF_A_PROMISE))


def known(names: Sequence[str]) -> tuple[str, ...]:
    """The checks of those names, all when none is named, in the order of a table. Raises ConfigError."""
    for name in names:
        if name not in CHECKS:
            raise ConfigError(f"there is no check {name!r}; {suggestion(name, CHECKS)}")
    return tuple(name for name in CHECKS if name in names or not names)


def audit(
    subjects: Sequence[Subject], names: Sequence[str], on_check: OnCheck, shadows: int = SHADOWS
) -> Iterator[Finding]:
    """Every check of `names` that applies, subject by subject.

    Raises ConfigError for an unknown check, or when none of them applies to any subject.
    """
    asked = known(names)
    jobs = [
        (subject, name)
        for subject in subjects
        for name in asked
        if name in applicable(subject.ground.method, subject.terms is not None)
    ]
    if not jobs:
        methods = " and ".join(sorted({subject.ground.method.name for subject in subjects}))
        raise ConfigError(f"{', '.join(asked)} does not apply to {methods} as this run trained it; leave out --checks")
    for subject, name in jobs:
        title = f"{subject.ground.method.name} at {', '.join(subject.sites)} · {name}"
        check = partial(lira, shadows=shadows) if name == "lira" else CHECKS[name]
        on_check(title, 0, 1)
        yield check(subject, partial(on_check, title))
