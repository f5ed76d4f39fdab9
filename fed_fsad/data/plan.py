"""Settings of how one data set becomes the hospitals of a simulation by a rule, instead of hospital by hospital."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, model_validator

from fed_fsad.data.settings import SITE, Holding, Settings
from fed_fsad.names import suggestion

MOST = 10_000
EVERY = "every"
"""Stands for all hospitals where a number is stated by hospital; one that is stated itself goes by its own."""
Own = TypeVar("Own")


def hospital_names(count: int) -> tuple[str, ...]:
    """What the hospitals of a partition are called."""
    return tuple(f"site-{place:02d}" for place in range(1, count + 1))


def own_of(stated: Mapping[str, Own], name: str) -> Own | None:
    """What is stated for a hospital, or for every one; None where nothing is."""
    return stated.get(name, stated.get(EVERY))


class PartitionSettings(Settings):
    """How train images are dealt out. Everything drawn follows from the run's seed."""

    hospitals: int = Field(ge=1, le=MOST, description="how many; they are called site-01, site-02, ...")
    by: Literal["organ", "dirichlet", "quantity", "patient", "column"] = Field(
        description="what the hospitals differ in"
    )
    column: str = Field(SITE, description="for column: the manifest's column whose values become hospitals")
    alpha: float = Field(0.5, gt=0, description="for dirichlet and quantity: near 0 = skewed, large = alike")
    keep: Literal["patients", "images"] = Field(
        "patients", description="what never lies at two hospitals: all images of a patient, or only each image"
    )
    least: int = Field(
        4, ge=0, description="normal train images of one organ that every hospital must get, the tiny one aside"
    )
    tiny: dict[str, Annotated[int, Field(ge=1)]] = Field(
        {}, description="train images that a hospital keeps, of one organ if that suffices; a number: the first one's"
    )
    missing: dict[str, Annotated[int, Field(ge=0)]] = Field(
        {}, description="how many categories a hospital lacks of those it was dealt; a number: every one's"
    )
    lacks: dict[str, tuple[str, ...]] = Field({}, description="categories that a hospital lacks, by name")
    wrong_labels: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(
        {}, description="share of wrong labels at a hospital; a number: the last one's"
    )
    shift: float = Field(0.0, ge=0, le=1, description="how much the hospitals' scanners differ; 0 = not at all")
    own_test: float = Field(0.0, ge=0, lt=1, description="share that a hospital keeps for its own evaluation")
    organs: tuple[str, ...] | None = Field(
        None, min_length=1, description="phantoms: organs to deal out; null = all but unseen_task"
    )
    normal: int | None = Field(None, ge=0, description="phantoms: normal images per organ, in all; null = 96")
    abnormal: int | None = Field(None, ge=0, description="phantoms: abnormal images per organ, in all; null = 96")

    @model_validator(mode="before")
    @classmethod
    def _by_hospital(cls, raw: Any) -> Any:
        """A bare number of `tiny`, `missing` or `wrong_labels` is that of the first, of every and of the last hospital;
        hospitals may be called by number.
        """
        count = raw.get("hospitals") if isinstance(raw, Mapping) else None
        if not isinstance(count, int) or not 1 <= count <= MOST:
            return raw  # the key's own field says what is wrong
        names = hospital_names(count)
        meant = {"tiny": names[0], "missing": EVERY, "wrong_labels": names[-1], "lacks": None}
        stated = {key: raw[key] for key in meant if key in raw}
        return {**raw, **{key: _named(key, own, names, meant[key]) for key, own in stated.items()}}

    @property
    def names(self) -> tuple[str, ...]:
        """What the hospitals are called."""
        return hospital_names(self.hospitals)

    @property
    def phantom_key(self) -> str | None:
        """A stated key that means something for phantoms only."""
        return next((key for key in ("organs", "normal", "abnormal") if getattr(self, key) is not None), None)


def _named(key: str, own: Any, names: tuple[str, ...], meant: str | None) -> Any:
    """By hospital, whatever way they are called. Raises ValueError for one that there is not."""
    if own is None:
        return {}
    if not isinstance(own, Mapping):
        return own if meant is None else {meant: own}
    found: dict[str, Any] = {}
    for stated, value in own.items():
        name = str(stated)
        if name.isdecimal() and 1 <= int(name) <= len(names):
            name = names[int(name) - 1]
        known = names if meant is None else (EVERY, *names)
        if name not in known:
            raise ValueError(f"{key}: partition makes no hospital {name!r}; {suggestion(name, known)}")
        found[name] = value
    return found


class Allotted(Settings):
    """What a hospital holds that a partition deals its images."""

    kind: Literal["partition"] = "partition"
    plan: PartitionSettings


Holdings = Mapping[str, Holding | Allotted]
"""What each hospital of a simulation holds, by name: all of them said one by one, or all of them dealt by one plan."""


def plan_of(holdings: Holdings) -> PartitionSettings | None:
    """The plan that deals all images out, if there is one."""
    first = next(iter(holdings.values()), None)
    return first.plan if isinstance(first, Allotted) else None
