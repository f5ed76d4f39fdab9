"""Settings of SD-MAD. Values the paper does not give are ours (see the method's documentation)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from fed_fsad.methods.method import TrainingSettings

Part = Literal["context", "text_adapters", "image_adapters"]
Selection = Literal["none", "support", "sample", "support+sample"]
ContextMode = Literal["shared", "per_category", "per_modality"]
Speech = Literal["signs", "names"]
Evidence = Literal["none", "probe"]
Preset = Literal["federated", "paper"]
Layers = Annotated[str, Field(pattern=r"^(all|quarters|(last|every) [1-9][0-9]*)$")]
"""Transformer layers: "all", "last 2", "every 3" (the 3rd, 6th, ...), or "quarters" (the last one of each quarter)."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "federated": {},
    "paper": {
        "text_layers": "quarters",
        "text_bottleneck": 384,
        "image_layers": "quarters",
        "image_bottleneck": 768,
        "selection": "support+sample",
        "support_evidence": "none",
    },
}
"""What a preset sets where the user says nothing; `federated` is the defaults."""


class Settings(TrainingSettings):
    """A frozen vision-language model, what is trained on it, and how signs are weighed."""

    preset: Preset = Field(
        "federated", description="fills in what is not stated; paper: its adapters in four layers and its selection"
    )
    model: str = Field("embedded", description="embedded, random (a control), or an open_clip model name")
    weights: str | None = Field(None, description="for an open_clip name: its pretrained tag, or a local weights file")
    image_size: int | None = Field(
        None,
        ge=1,
        description="side of the square input in pixels; null = the model's own; its position embedding follows",
    )
    signs: tuple[str, ...] = Field(("phantoms",), min_length=1, description="sign lists: bundled names or YAML files")
    signs_as: Speech = Field("signs", description="names: class names alone, to see what the signs are worth")
    trainable: tuple[Part, ...] = Field(
        ("context", "text_adapters", "image_adapters"), min_length=1, description="the parts that learn and travel"
    )
    context: ContextMode = Field("shared", description="who shares the context tokens")
    n_ctx: int = Field(4, ge=1, description="learnable context tokens before every sign")
    text_layers: Layers = Field("every 2", description="text layers with an adapter: all, last n, every n, or quarters")
    text_bottleneck: int = Field(64, ge=1, description="inner width of a text adapter")
    image_layers: Layers = Field("last 2", description="image layers with an adapter; those before them are cached")
    image_bottleneck: int = Field(64, ge=1, description="inner width of an image adapter")
    keep: float = Field(0.9, ge=0, le=1, description="lambda: share of the frozen layer's output; 1 = frozen model")
    multilevel: bool = Field(False, description="look for signs in the patches of every adapted image layer as well")
    inter_weight: float = Field(1.0, ge=0, description="beta: weight of the loss that drives categories apart")
    selection: Selection = Field("sample", description="which signs speak at inference")
    kept_signs: float = Field(0.6, gt=0, le=1, description="share of each category's signs that selection keeps")
    support_evidence: Evidence = Field(
        "probe", description="probe: the look of abnormal supports helps to tell which anomaly it is"
    )

    @model_validator(mode="before")
    @classmethod
    def _preset_fills_in(cls, raw: Any) -> Any:
        """A stated key stands above the preset."""
        chosen = raw.get("preset") if isinstance(raw, dict) else None
        return {**PRESETS[chosen], **raw} if isinstance(chosen, str) and chosen in PRESETS else raw
