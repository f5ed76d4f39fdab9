"""What a server may ask for in privacy, and how it meets what a hospital's own policy says."""

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fed_fsad.errors import PolicyRefusal
from fed_fsad.privacy.accounting import noise_for
from fed_fsad.privacy.policy import Policy
from fed_fsad.privacy.records import Unit


class _Terms(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ExampleTerms(_Terms):
    """Example-level privacy that the server asks of every site."""

    epsilon: float = Field(8.0, gt=0, description="largest budget of a site; must be stated in mode example or both")
    delta: float = Field(1e-5, gt=0, lt=1, description="must stay below 1 / number of images of every site")
    unit: Unit = Field("image", description="whom the guarantee protects; patient needs patient ids on all images")
    clip_norm: float = Field(1.0, gt=0, description="C: the longest gradient one record may add")


class HospitalTerms(_Terms):
    """Hospital-level privacy, which the server makes: clipped updates, noise on their sum."""

    epsilon: float = Field(8.0, gt=0, description="budget of the whole run; must be stated in mode hospital or both")
    delta: float = Field(1e-5, gt=0, lt=1, description="must stay below 1 / number of hospitals that train")
    clip_norm: float = Field(1.0, gt=0, description="C: the longest update of a hospital; adaptive: where C starts")
    clipping: Literal["fixed", "adaptive"] = Field(
        "fixed", description="adaptive: C follows a quantile of the updates' lengths"
    )
    target_quantile: float = Field(0.5, gt=0, lt=1, description="adaptive: share of updates that C should not shorten")
    noise_multiplier: float | None = Field(
        None, gt=0, description="noise against C in every round; null = what lets the budget last for all rounds"
    )

    @model_validator(mode="after")
    def _one_round_is_paid_for(self) -> "HospitalTerms":
        least = noise_for(self.epsilon, self.delta, 1)
        if self.noise_multiplier is not None and self.noise_multiplier < least:
            raise ValueError(
                f"noise_multiplier {self.noise_multiplier:g} is too little for one round at epsilon {self.epsilon:g}; "
                f"set it to {math.ceil(1000 * least) / 1000:g} or more"
            )
        return self


def agreed(policy: Policy, asked: ExampleTerms | None) -> Policy:
    """The policy that a site trains under in a round: its own, tightened where the server asks for more.

    The result is never weaker than the policy nor than what is asked: smaller ε, δ and C, the larger unit. Nothing that
    the policy forbids becomes allowed. Where the policy asks for no privacy of its own, the server's terms hold.
    """
    if asked is None:
        return policy
    if policy.privacy == "off":
        return policy.model_copy(update={**asked.model_dump(), "privacy": "example", "release_metrics": False})
    return policy.model_copy(
        update={
            "epsilon": min(policy.epsilon, asked.epsilon),
            "delta": min(policy.delta, asked.delta),
            "unit": "patient" if "patient" in (policy.unit, asked.unit) else "image",
            "clip_norm": min(policy.clip_norm, asked.clip_norm),
        }
    )


def admit_terms(policy: Policy, promised: HospitalTerms | None) -> None:
    """Raise PolicyRefusal when the policy demands hospital-level privacy that the server does not promise.

    A site cannot check the promise: the server that makes it is trusted with the updates.
    """
    limit = policy.hospital_epsilon
    if limit is not None and (promised is None or promised.epsilon > limit):
        raise PolicyRefusal(
            "no_hospital_level_privacy",
            f"the policy takes part only under hospital-level privacy of epsilon {limit:g} or less and the server "
            f"promises {'none' if promised is None else f'{promised.epsilon:g}'}: agree with the server's operator",
        )
