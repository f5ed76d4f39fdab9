"""Settings of D²4FAD."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fed_fsad.methods.method import TrainingSettings
from fed_fsad.names import suggestion

BUILT_IN = ("embedded", "random")
BASIC = ("resnet18", "resnet34")
BOTTLENECKS = ("resnet50", "wide_resnet50_2", "wide_resnet101_2")
TIMM = "timm/"
OFFICIAL: dict[str, Any] = {
    "image_size": 128,
    "batch": 16,
    "lr": 1e-4,
    "betas": (0.5, 0.999),
    "tsd_weight": 0.1,
    "tsd_form": "flat",
    "weights_on": "features",
    "stop_gradient": False,
    "l2w_scale": "sqrt_c",
    "train_l2w": True,
    "norm": "batch",
    "batches": "apart",
    "episodes": "fixed",
    "score": "d24fad",
    "image_score": "max",
}
"""What the public code does, as far as a method's settings can say it; docs/defects.md tells the rest."""
OFFICIAL_TEACHER = {"name": "wide_resnet50_2", "weights": "IMAGENET1K_V1"}


class TeacherSettings(BaseModel):
    """The frozen network that is distilled."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        default="embedded",
        description="embedded: in the wheel; random: the same network untrained, a control; resnet18, resnet34, "
        "resnet50, wide_resnet50_2, wide_resnet101_2: torchvision's; timm/NAME: timm's",
    )
    weights: str | None = Field(
        default=None,
        description="of a torchvision network: its name there (IMAGENET1K_V1), of a timm one `pretrained`; or a "
        ".safetensors or .pth file",
    )
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="what the weights file must hash to")
    variant: Literal["v1.5", "v1"] = Field(
        default="v1.5",
        description="v1.5: torchvision's; v1: bottlenecks stride in their first 1x1, ceil-mode max-pool, as in Caffe",
    )
    input_norm: Literal["own", "none"] = Field(
        default="own",
        description="own: the mean and deviation that the weights were trained with, ImageNet's unless timm knows "
        "better; none: the public code's",
    )

    @model_validator(mode="after")
    def _weights_fit_the_name(self) -> Self:
        known = (*BUILT_IN, *BASIC, *BOTTLENECKS)
        if self.name not in known and not self.name.startswith(TIMM):
            raise ValueError(f"there is no teacher {self.name!r}; {suggestion(self.name, (*known, 'timm/NAME'))}")
        if self.name in BUILT_IN and (self.weights, self.sha256, self.variant) != (None, None, "v1.5"):
            raise ValueError(f"teacher {self.name!r} takes no weights, sha256 or variant: remove them")
        if self.name not in BUILT_IN and self.weights is None:
            raise ValueError(f"teacher {self.name!r} needs weights: a name its library knows, or a file")
        if self.variant == "v1" and self.name not in BOTTLENECKS:
            raise ValueError(f"teacher {self.name!r} has no variant v1, torchvision's bottlenecks have: remove it")
        return self


class Settings(TrainingSettings):
    """Everything D²4FAD can be told."""

    preset: Literal["default", "official"] = Field(
        "default", description="official: what the public code does, for every key that is not stated"
    )
    teacher: TeacherSettings = TeacherSettings()
    student: Literal["full", "light"] = Field(
        "full", description="light: scales, shifts and low-rank updates of a frozen student are all that trains"
    )
    student_weights: str | None = Field(
        None, description="a .safetensors file that student and weighting start from; light has one for `embedded`"
    )
    rank: int = Field(4, ge=1, description="of a light student's updates")
    image_size: int = Field(128, ge=64, le=1024, multiple_of=32, description="side of the square input in pixels")
    supports: int = Field(2, ge=1, description="supports per query in training; scoring takes any number")
    tsd_weight: float = Field(0.1, ge=0, description="λ, the weight of the teacher-student loss")
    tsd_form: Literal["flat", "positions"] = Field(
        "flat", description="its cosine: of flattened features, as the public code, or per position, as the paper"
    )
    weights_on: Literal["features", "distances"] = Field(
        "features", description="what learn-to-weight weighs: the supports' features, or the distances to them"
    )
    stop_gradient: bool = Field(False, description="no gradient through the supports' side of the support loss")
    l2w_scale: Literal["sqrt_chw", "sqrt_c", "learned"] = Field(
        "sqrt_chw",
        description="what divides learn-to-weight's dot products; the public code's sqrt_c saturates the softmax; "
        "learned starts at sqrt_chw",
    )
    train_l2w: bool = Field(True, description="false: φ stays as it was drawn, as in the public code's first months")
    norm: Literal["group", "batch"] = Field(
        "group",
        description="the student's normalisation; batch is the public code's, its running statistics never travel",
    )
    statistics: Literal["supports", "running"] = Field(
        "supports",
        description="what BatchNorm normalises with when it scores: the K supports' statistics, or training's running "
        "ones, which only the process that trained has",
    )
    batches: Literal["gathered", "apart"] = Field(
        "gathered",
        description="gathered: queries of one task, supports among them, each image decoded once; apart: the public "
        "code's, of any tasks, queries and every k-th supports decoded in calls of their own",
    )
    episodes: Literal["resample", "fixed"] = Field(
        "resample", description="an image's supports: drawn anew in every step, or once for all, with replacement"
    )
    score: Literal[
        "fused",
        "d24fad",
        "patches",
        "near_patches",
        "patches_1",
        "patches_2",
        "patches_3",
        "standard_patches_1",
        "standard_patches_2",
        "standard_patches_3",
        "student_patches",
        "positions",
        "teacher_student",
    ] = Field("fused", description="what the anomaly map is made of: docs/scores.md; d24fad is the published score")
    image_score: Literal["max", "mean", "topk"] = Field(
        "topk", description="what an image's score is of its anomaly map; topk: the mean of its highest 1 %"
    )

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, raw: Any) -> Any:
        """The preset's values for what is not stated; of a teacher that is named only the input normalisation."""
        if not isinstance(raw, dict) or raw.get("preset") != "official":
            return raw
        teacher = raw.get("teacher", OFFICIAL_TEACHER)
        if isinstance(teacher, dict):
            teacher = {"input_norm": "none", **teacher}
        return {**OFFICIAL, **raw, "teacher": teacher}

    @model_validator(mode="after")
    def _light_fits(self) -> Self:
        if self.student == "light" and self.norm == "batch":
            raise ValueError("a light student has no BatchNorm: set norm: group or student: full")
        return self
