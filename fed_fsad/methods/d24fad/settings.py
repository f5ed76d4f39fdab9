"""Settings of D²4FAD."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fed_fsad.methods.method import TrainingSettings

TeacherName = Literal["embedded", "random", "resnet18", "resnet34", "resnet50", "wide_resnet50_2"]
BUILT_IN = ("embedded", "random")


class TeacherSettings(BaseModel):
    """The frozen network that is distilled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: TeacherName = Field(
        default="embedded",
        description="embedded: in the wheel; random: the same network untrained, a control; else torchvision's",
    )
    weights: str | None = Field(
        default=None,
        description="a torchvision network's weights: its name there (IMAGENET1K_V1) or a .safetensors or .pth file",
    )
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="what the weights file must hash to")
    variant: Literal["v1.5", "v1"] = Field(
        default="v1.5",
        description="v1.5: torchvision's; v1: bottlenecks stride in their first 1x1, ceil-mode max-pool, as in Caffe",
    )

    @model_validator(mode="after")
    def _weights_fit_the_name(self) -> Self:
        if self.name in BUILT_IN and (self.weights, self.sha256, self.variant) != (None, None, "v1.5"):
            raise ValueError(f"teacher {self.name!r} takes no weights, sha256 or variant: remove them")
        if self.name not in BUILT_IN and self.weights is None:
            raise ValueError(f"teacher {self.name!r} needs weights: a name torchvision knows, or a file")
        if self.variant == "v1" and self.name not in ("resnet50", "wide_resnet50_2"):
            raise ValueError(f"teacher {self.name!r} has no bottlenecks and so no variant v1: remove it")
        return self


class Settings(TrainingSettings):
    """Everything D²4FAD can be told."""

    teacher: TeacherSettings = TeacherSettings()
    image_size: int = Field(96, ge=64, le=1024, multiple_of=32, description="side of the square input in pixels")
    supports: int = Field(2, ge=1, description="supports per query in training; scoring takes any number")
    tsd_weight: float = Field(0.1, ge=0, description="λ, the weight of the teacher-student loss")
    l2w_scale: Literal["sqrt_chw", "sqrt_c"] = Field(
        "sqrt_chw",
        description="what divides learn-to-weight's dot products; the public code's sqrt_c saturates the softmax",
    )
    norm: Literal["group", "batch"] = Field(
        "group",
        description="the student's normalisation; batch is the public code's, its running statistics never travel",
    )
    image_score: Literal["max", "mean"] = Field("max", description="what an image's score is of its anomaly map")
