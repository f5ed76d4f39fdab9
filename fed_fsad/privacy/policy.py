"""policy.yaml: what a hospital allows, whatever the server asks. It stays at the hospital and is never sent."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fed_fsad.errors import ConfigError
from fed_fsad.explain import explain
from fed_fsad.names import suggestion
from fed_fsad.privacy.records import Unit


class Policy(BaseModel):
    """A hospital's own limits; refusing is all a policy can do, it never softens what was asked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    privacy: Literal["off", "example"] = Field("off", description="example: whatever leaves is differentially private")
    unit: Unit = Field("image", description="whom the guarantee protects; patient needs patient ids on all images")
    epsilon: float = Field(8.0, gt=0, description="budget over all rounds, runs and methods; must be stated under DP")
    delta: float = Field(1e-5, gt=0, lt=1, description="must stay below 1 / number of images")
    clip_norm: float = Field(1.0, gt=0, description="C: the longest gradient one record may add")
    least_noise: float = Field(0.0, ge=0, description="smallest noise multiplier, however short the training is")
    noise: float | None = Field(
        None, gt=0, description="noise multiplier of every step; null = what lets the budget last for the whole run"
    )
    steps_per_round: int = Field(1, ge=1, description="noisy steps per round and method; each is a release")
    expected_batch: int = Field(
        256, ge=1, description="records in a noisy step: all of them up to here, above it as many on average, by chance"
    )
    methods: Mapping[str, tuple[str, ...]] | None = Field(
        None, description="method to the parts that may be trained and sent; none stated: everything"
    )
    smallest_cohort: int = Field(1, ge=1, description="sites a round must have for this one to join")
    secure_aggregation: bool = Field(
        False, description="updates leave masked only, inside a sum of three sites or more"
    )
    smallest_records: int = Field(1, ge=1, description="privacy records below which nothing is trained")
    largest_rho: float = Field(3.0, gt=0, description="noise against signal above which nothing is trained")
    hospital_epsilon: float | None = Field(
        None, gt=0, description="rounds without hospital-level privacy of this ε or less are refused; null = none is"
    )
    release_metrics: bool = Field(
        False, description="figures of the site's own few-shot evaluation may leave; no guarantee covers them"
    )

    @field_validator("privacy", mode="before")
    @classmethod
    def _yaml_reads_off_as_false(cls, value: object) -> object:
        return "off" if value is False else value

    @model_validator(mode="after")
    def _budget_is_stated(self) -> "Policy":
        if self.privacy == "example" and "epsilon" not in self.model_fields_set:
            raise ValueError("privacy: example needs a budget; state epsilon, for instance epsilon: 8")
        if self.privacy == "example" and self.release_metrics:
            raise ValueError("release_metrics: true is not covered by privacy: example; set one of them off")
        return self

    def allowed_parts(self, method: str, parts: Sequence[str]) -> tuple[str, ...]:
        """Which of a method's parts may be trained and sent; empty when the method is forbidden.

        Raises ConfigError when the policy names a part that the method does not have.
        """
        if self.methods is None:
            return tuple(parts)
        allowed = self.methods.get(method, ())
        for part in allowed:
            if part not in parts:
                raise ConfigError(
                    f"the policy allows part {part!r} of {method}, which has none: {suggestion(part, parts)}"
                )
        return tuple(part for part in parts if part in allowed)


def load_policy(path: Path) -> Policy:
    """Read a policy file. Raises ConfigError naming the key and what to write instead."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"the policy {path} cannot be read ({reason}): mend the file or its path") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the policy {path} holds no settings: write at least privacy: off or privacy: example")
    try:
        return Policy.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, Policy)}") from error
