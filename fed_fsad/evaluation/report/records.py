"""What the files of a run directory hold, as types. Unknown keys are ignored, so an older report reads a newer run."""

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Optional = float | None
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


class EvaluationLine(Record):
    """The few-shot evaluation of one method after one round. image_auroc: by K ("4") or by protocol."""

    kind: Literal["evaluation"]
    round: int
    method: str
    image_auroc: Curves = {}
    pixel_auroc: Optional = None
    headline_name: str = "headline figure"
    headline: Optional = None


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


Line = Annotated[RoundLine | SiteLine | EvaluationLine | WarningLine | SkippedLine, Field(discriminator="kind")]


class MethodSummary(Record):
    """The closing figures of one method. interval: 95 %, of the federated headline figure over the test images."""

    image_auroc: Curves = {}
    image_auroc_sd: Curves = {}
    interval: tuple[float, float] | None = None
    headline_name: str = "headline figure"
    headline: Optional = None
    pixel_auroc: Optional = None
    pixel_aupro: Optional = None
    arms: Curves = {}
    baselines: Curves = {}
    left_out: int = 0
    notes: tuple[str, ...] = ()


class SiteSummary(Record):
    """What one site did over the whole run. local: the headline figure of its own local-only model, per method."""

    rounds: int = 0
    failures: int = 0
    examples: int | None = None
    epsilon: Optional = None
    delta: Optional = None
    unit: str | None = None
    claim: str | None = None
    local: Curves = {}


class Seconds(Record):
    """Wall time."""

    total: Optional = None
    per_round: Optional = None


class Traffic(Record):
    """Bytes over all rounds."""

    up: int = 0
    down: int = 0


class Summary(Record):
    """summary.json: written when a run ends, well or badly."""

    status: str
    error: str | None = None
    name: str | None = None
    seed: int | None = None
    rounds: int | None = None
    seconds: Seconds = Seconds()
    bytes: Traffic | None = None
    insecure_noise: bool = False
    skipped_images: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()
    methods: dict[str, MethodSummary] = {}
    sites: dict[str, SiteSummary] = {}


class Roc(Record):
    """A receiver operating characteristic, both of one length."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


class ImageScore(Record):
    """One test image. label: 1 or true is abnormal."""

    name: str
    task: str
    label: int
    categories: tuple[str, ...] = ()
    score: float


class GalleryItem(ImageScore):
    """One test image with pictures; paths are relative to evaluation/METHOD/."""

    image: str
    mask: str | None = None
    map: str | None = None
    kind: Text = ""


class Sign(Record):
    """One sign of a category. reliability: AUROC on the support images; kept: used for scoring."""

    sign: str
    reliability: Optional = None
    kept: bool


class Details(Record):
    """evaluation/METHOD/details.json. signs: by task, then by category."""

    roc: dict[str, Roc] = {}
    scores: tuple[ImageScore, ...] = ()
    gallery: tuple[GalleryItem, ...] = ()
    signs: dict[str, dict[str, tuple[Sign, ...]]] = {}


class LedgerLine(Record):
    """A line of a site's privacy ledger: the header states delta and unit, a charge what it brought ε to."""

    unit: str | None = None
    delta: Optional = None
    epsilon_after: Optional = None
    secure: bool = True


class Account(Record):
    """What a ledger amounts to. secure: False when the noise of any charge was seeded."""

    epsilon: Optional = None
    delta: Optional = None
    unit: str | None = None
    secure: bool = True


class Environment(Record):
    """environment.json: everything in it is shown; these are what the header needs."""

    model_config = ConfigDict(extra="allow", frozen=True)

    run_id: Text = ""
    started: Text = ""

    def facts(self) -> dict[str, str]:
        """Every entry, nested keys joined by dots."""
        return _flat(self.model_dump())


def _flat(value: object, prefix: str = "") -> dict[str, str]:
    """{"a": {"b": 1}} becomes {"a.b": "1"}."""
    if not isinstance(value, dict):
        return {prefix: str(value)}
    return {k: v for name, item in value.items() for k, v in _flat(item, f"{prefix}.{name}".lstrip(".")).items()}
