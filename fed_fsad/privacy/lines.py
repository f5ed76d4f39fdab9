"""The lines of a ledger file: JSON, one object per line, checked field by field when read back."""

import math
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from fed_fsad.privacy.accounting import mu_squared
from fed_fsad.privacy.composition import Releases
from fed_fsad.privacy.records import Records, Unit

Protected = Unit | Literal["hospital"]
"""Whom a ledger's guarantee is about: a site's own records, or in the server's ledger one hospital as a whole."""


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Header(_Line):
    """The first line: what the whole account is about; it never changes."""

    kind: Literal["header"] = "header"
    version: Literal[1] = 1
    unit: Protected
    delta: float = Field(gt=0, lt=1)
    adjacency: Literal["remove one record"] = "remove one record"
    sampling: Literal["by charge", "full batch"] = "by charge"
    """full batch: a ledger begun before charges had a rate."""


class Split(_Line):
    """The records of a method, frozen when it first trains here."""

    kind: Literal["split"] = "split"
    method: str
    records: Records


class Request(_Line):
    """What a server asked for. key: digest of all that decides the answer (see `request_key`)."""

    run: str
    round: int
    method: str
    key: str


class Charge(_Line):
    """What one answer cost. release: SHA-256 of the bytes that leave; equal bytes are paid for once.

    rate: the probability with which a record enters a batch; 1 is a full batch. mu_squared: the cost as if it were 1.
    epsilon_after: ε of the whole ledger with this charge. mu_squared_after: the sum of costs, so that a missing line
    shows; older ledgers, all full batches, lack it. secure: False when its noise was seeded.
    """

    kind: Literal["charge"] = "charge"
    request: Request
    release: str
    releases: int = Field(ge=1)
    sigma: float = Field(gt=0)
    rate: float = Field(default=1.0, gt=0, le=1)
    mu_squared: float
    mu_squared_after: float | None = None
    epsilon_after: float
    secure: bool
    time: AwareDatetime

    @model_validator(mode="after")
    def _adds_up(self) -> "Charge":
        if not math.isclose(self.mu_squared, mu_squared(self.releases, self.sigma), rel_tol=1e-12):
            raise ValueError("mu_squared is not releases / sigma²")
        return self

    @property
    def cost(self) -> Releases:
        """What it adds to an account."""
        return Releases(self.releases, self.sigma, self.rate)


Line = Header | Split | Charge
_LINE: TypeAdapter[Line] = TypeAdapter(Annotated[Line, Field(discriminator="kind")])


def dump(line: Line) -> bytes:
    """The line as bytes with its newline."""
    return line.model_dump_json().encode() + b"\n"


def parse(text: bytes) -> Line | None:
    """The line that `text` holds, or None when it is damaged."""
    try:
        return _LINE.validate_json(text)
    except ValidationError:
        return None
