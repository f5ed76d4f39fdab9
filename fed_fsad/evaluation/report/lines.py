"""The lines of metrics.jsonl and of a site's ledger, as types. Unknown keys are ignored: old reports read new runs."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Optional = float | None
Interval = tuple[float, float] | None
Curves = dict[str, Optional]
Text = Annotated[str, BeforeValidator(lambda value: "" if value is None else str(value))]


class Record(BaseModel):
    """Base of every record."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class RoundLine(Record):
    """One finished round, as the server saw it. bytes_up: from the sites to the server."""

    kind: Literal["round"]
    round: int
    seconds: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    replies: int = 0
    rejected: dict[str, str] = {}
    attempt: int = 1


class Training(Record):
    """How one method trained at one site in one round; None where the site's privacy keeps it back."""

    loss: Optional = None
    examples: int | None = None


class SiteLine(Record):
    """One site in one round. epsilon: spent over all rounds so far, None without differential privacy."""

    kind: Literal["site"]
    round: int
    site: str
    status: str = "ok"
    reason: Text = ""
    methods: dict[str, Training] = {}
    epsilon: Optional = None
    delta: Optional = None
    unit: str | None = None
    claim: str | None = None
    seconds: Optional = None
    role: str = "train"
    bytes_up: int | None = None
    bytes_down: int | None = None


class Headline(Record):
    """What every detector has: its headline figure with the 95 % interval over the test images."""

    method: str
    headline: Optional = None
    headline_name: str = "headline figure"
    interval: Interval = None


class EvaluationLine(Headline):
    """The few-shot evaluation of one method after one round. image_auroc: by K ("4") or by protocol."""

    kind: Literal["evaluation"]
    round: int
    image_auroc: Curves = {}
    pixel_auroc: Optional = None
    headline_key: str | None = None


class SiteEvaluationLine(Headline):
    """The headline figure of the model after `round` on the images of a site that released it, and that of its personal
    model. images: how many.
    """

    kind: Literal["site_evaluation"]
    round: int
    site: str
    images: int | None = None
    personal: Optional = None
    personal_low: Optional = None
    personal_high: Optional = None


class ArmLine(Headline):
    """A method trained in another way: "pooled", or "local" at `site`."""

    kind: Literal["arm"]
    arm: str
    site: str | None = None


class BaselineLine(Headline):
    """A detector without training beside a method."""

    kind: Literal["baseline"]
    name: str


class SuspendedLine(Record):
    """A site that is not asked again in this run."""

    kind: Literal["suspended"]
    round: int
    site: str
    reason: Text = ""


class WarningLine(Record):
    """Something the run wants a reader to know."""

    kind: Literal["warning"]
    round: int | None = None
    text: str


class Skipped(Record):
    """An image that could not be read and was left out."""

    name: str
    reason: str


class SkippedLine(Record):
    """The images left out, once known."""

    kind: Literal["skipped"]
    images: tuple[Skipped, ...]


class HospitalLine(Record):
    """The hospital-level account after a round: what the server's own noise has cost so far, of what."""

    kind: Literal["hospital_privacy"]
    round: int
    epsilon: Optional = None
    budget: Optional = None
    delta: Optional = None
    sigma: Optional = None
    clip_norm: Optional = None
    cohort: int | None = None
    claim: str | None = None


Line = Annotated[
    RoundLine
    | SiteLine
    | SiteEvaluationLine
    | SuspendedLine
    | EvaluationLine
    | ArmLine
    | BaselineLine
    | WarningLine
    | SkippedLine
    | HospitalLine,
    Field(discriminator="kind"),
]


def key(line: Line) -> tuple[int, str, str, str]:
    """What a line is about: of two lines about the same thing the later one counts."""
    match line:
        case SiteLine() | SuspendedLine():
            return line.round, line.kind, line.site, ""
        case SiteEvaluationLine():
            return line.round, line.kind, line.site, line.method
        case EvaluationLine():
            return line.round, line.kind, line.method, ""
        case ArmLine():
            return 0, line.kind, line.method, f"{line.arm} {line.site or ''}"
        case BaselineLine():
            return 0, line.kind, line.method, line.name
        case WarningLine():
            return line.round or 0, line.kind, line.text, ""
        case RoundLine() | HospitalLine():
            return line.round, line.kind, "", ""
    return 0, line.kind, "", ""


class Request(Record):
    """What a charge was for."""

    round: int | None = None
    method: str = ""


class LedgerLine(Record):
    """A line of a site's privacy ledger: the header states delta and unit, a charge what it brought ε to."""

    unit: str | None = None
    delta: Optional = None
    epsilon_after: Optional = None
    releases: int | None = None
    sigma: Optional = None
    secure: bool = True
    request: Request = Request()


class Account(Record):
    """What a ledger amounts to. charges: its lines that raised ε, in order."""

    delta: Optional = None
    unit: str | None = None
    charges: tuple[LedgerLine, ...] = ()

    @property
    def epsilon(self) -> float | None:
        """ε after everything that was ever charged; None before the first charge."""
        return max((line.epsilon_after for line in self.charges if line.epsilon_after is not None), default=None)

    @property
    def secure(self) -> bool:
        """False when the noise of any charge was seeded."""
        return all(line.secure for line in self.charges)
