"""The JSON files of a run directory, as types: unknown keys are ignored, and what older runs lack has a default."""

from typing import Any

from pydantic import ConfigDict, Field

from fed_fsad.evaluation.report.lines import Curves, Interval, Optional, Record, Skipped, Text


class MethodSummary(Record):
    """The closing figures of one method. interval: 95 %, of the federated headline figure over the test images."""

    image_auroc: Curves = Field(default_factory=dict)
    image_auroc_sd: Curves = Field(default_factory=dict)
    interval: Interval = None
    headline_name: str = "headline figure"
    headline: Optional = None
    average_precision: Optional = None
    pixel_auroc: Optional = None
    pixel_aupro: Optional = None
    pixel_dice: Optional = None
    sensitivity_95: Optional = None
    extra: Curves = Field(default_factory=dict)
    arms: Curves = Field(default_factory=dict)
    baselines: Curves = Field(default_factory=dict)
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
    guarantee: str | None = None
    local: Curves = Field(default_factory=dict)


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
    methods: dict[str, MethodSummary] = Field(default_factory=dict)
    sites: dict[str, SiteSummary] = Field(default_factory=dict)


class Roc(Record):
    """A receiver operating characteristic, both of one length. task and label: empty in runs before they were kept."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]
    task: str = ""
    label: str = ""


class PrecisionRecall(Record):
    """A precision-recall curve. prevalence: the share of positives, which is what guessing reaches."""

    recall: tuple[float, ...]
    precision: tuple[float, ...]
    prevalence: float
    task: str
    label: str


class OperatingPoint(Record):
    """A threshold that no test image chose: scores above it are called abnormal. specificity: what it promises."""

    curve: str
    threshold: float
    specificity: float
    normals: int


class ImageScore(Record):
    """One test image. label: 1 or true is abnormal."""

    name: str
    task: str
    label: int
    categories: tuple[str, ...] = ()
    score: float
    category_scores: dict[str, float] = Field(default_factory=dict)


class Evidence(Record):
    """Why an image got its score of a category: what each sign gave, loudest first, and what the supports added."""

    category: str
    score: float
    signs: tuple[tuple[str, float], ...]
    supports: float = 0.0
    probability: Optional = None


class GalleryItem(ImageScore):
    """One test image with pictures; paths are relative to evaluation/METHOD/."""

    image: str
    mask: str | None = None
    map: str | None = None
    kind: Text = ""
    evidence: tuple[Evidence, ...] = ()


class Sign(Record):
    """One sign of a category. reliability: AUROC on the support images; kept: used for scoring."""

    sign: str
    reliability: Optional = None
    kept: bool


class Details(Record):
    """evaluation/METHOD/details.json. operating: by task. signs, thresholds: by task, then by category."""

    roc: dict[str, Roc] = Field(default_factory=dict)
    precision_recall: dict[str, PrecisionRecall] = Field(default_factory=dict)
    operating: dict[str, OperatingPoint] = Field(default_factory=dict)
    scores: tuple[ImageScore, ...] = ()
    gallery: tuple[GalleryItem, ...] = ()
    signs: dict[str, dict[str, tuple[Sign, ...]]] = Field(default_factory=dict)
    thresholds: dict[str, dict[str, float]] = Field(default_factory=dict)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Every task that was scored, sorted."""
        return tuple(sorted({scored.task for scored in self.scores}))


class Environment(Record):
    """environment.json: everything in it is shown; these are what the header needs."""

    model_config = ConfigDict(extra="allow", frozen=True)

    run_id: Text = ""
    started: Text = ""

    def facts(self) -> dict[str, str]:
        """Every entry, nested keys joined by dots."""
        return _flat(self.model_dump())


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """{"a": {"b": 1}} becomes {"a.b": "1"}."""
    if not isinstance(value, dict):
        return {prefix: str(value)}
    return {k: v for name, item in value.items() for k, v in _flat(item, f"{prefix}.{name}".lstrip(".")).items()}
