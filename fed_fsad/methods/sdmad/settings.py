"""Settings of SD-MAD. Values the paper does not give are ours (see the method's documentation)."""

from typing import Annotated, Literal

from pydantic import Field

from fed_fsad.methods.method import TrainingSettings

Part = Literal["context", "text_adapters", "image_adapters"]
Selection = Literal["none", "support", "sample", "support+sample"]
Layers = Annotated[str, Field(pattern=r"^(all|(last|every) [1-9][0-9]*)$")]
"""Transformer layers: "all", "last 2", or "every 3" (the 3rd, 6th, ...)."""


class Settings(TrainingSettings):
    """A frozen vision-language model, what is trained on it, and how signs are weighed."""

    model: str = Field("embedded", description="embedded, random (a control), or an open_clip model name")
    weights: str | None = Field(None, description="for an open_clip name: its pretrained tag, or a local weights file")
    signs: tuple[str, ...] = Field(("phantoms",), min_length=1, description="sign lists: bundled names or YAML files")
    trainable: tuple[Part, ...] = Field(
        ("context", "text_adapters", "image_adapters"), min_length=1, description="the parts that learn and travel"
    )
    n_ctx: int = Field(4, ge=1, description="learnable context tokens before every sign")
    text_layers: Layers = Field("every 2", description="text layers with an adapter: all, last n, or every n")
    text_bottleneck: int = Field(64, ge=1, description="inner width of a text adapter")
    image_layers: Layers = Field("last 2", description="image layers with an adapter; those before them are cached")
    image_bottleneck: int = Field(64, ge=1, description="inner width of an image adapter")
    keep: float = Field(0.9, ge=0, le=1, description="lambda: share of the frozen layer's output; 1 = frozen model")
    inter_weight: float = Field(1.0, ge=0, description="beta: weight of the loss that drives categories apart")
    selection: Selection = Field("support+sample", description="which signs speak at inference")
    kept_signs: float = Field(0.6, gt=0, le=1, description="share of each category's signs that selection keeps")
