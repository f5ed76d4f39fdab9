"""Teachers out of timm: any network whose feature stages lie at strides 4, 8, 16 and 32."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from fed_fsad.errors import CheckpointError, ConfigError
from fed_fsad.methods.d24fad.checkpoint import put_in_place, read_weights
from fed_fsad.methods.d24fad.settings import TIMM, TeacherSettings
from fed_fsad.methods.d24fad.teacher import Anatomy, Normalisation, Stages

STRIDES = (4, 8, 16, 32)
PRETRAINED = "pretrained"
BLOCKS = (2, 2, 2)
SQUEEZE, BOTTLENECK_FROM = 4, 256
"""A student of a timm teacher (ours): two blocks a stage, bottlenecks from 256 channels in the first stage on."""


class TimmStages(nn.Module):
    """timm's feature extractor, its stages as a tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Stages:
        """[B, 3, S, S], normalised, to the four stages at strides 4, 8, 16 and 32."""
        f1, f2, f3, f4 = self.network(x)
        return f1, f2, f3, f4


def timm_network(settings: TeacherSettings) -> tuple[TimmStages, Anatomy, Normalisation]:
    """The network with its weights, its shape, and mean and deviation of its input.

    Raises ConfigError for a model that timm does not have or whose stages do not fit, CheckpointError for weights that
    do not.
    """
    name = settings.name.removeprefix(TIMM)
    if name not in timm.list_models():
        raise ConfigError(f"timm has no model {name!r}; choose one that timm.list_models() names")
    places = _places(name)
    network: Any
    if settings.weights == PRETRAINED:
        network = _fetched(name, places, settings)
    else:
        whole = timm.create_model(name, pretrained=False)
        put_in_place(whole, read_weights(Path(settings.weights or ""), settings.sha256), str(settings.weights))
        network = _extractor(name, places, whole.state_dict())
    widths = tuple(network.feature_info.channels())
    stages = TimmStages(network).eval()
    _try(name, stages, widths)
    return (
        stages,
        Anatomy(widths, BLOCKS, squeeze_of(widths)),
        (network.pretrained_cfg["mean"], network.pretrained_cfg["std"]),
    )


def squeeze_of(widths: tuple[int, ...]) -> int | None:
    """Of a student's bottlenecks; None, for basic blocks, where the first stage is narrow or widths do not divide."""
    divides = not any(width % SQUEEZE for width in widths[:3])
    return SQUEEZE if widths[0] >= BOTTLENECK_FROM and divides else None


def _places(name: str) -> tuple[int, ...]:
    """Which of the model's feature stages lie at the four strides."""
    try:
        network: Any = timm.create_model(name, pretrained=False, features_only=True)
        reductions = network.feature_info.reduction()
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
        raise ConfigError(f"timm's {name} gives no feature stages; choose a convolutional model") from error
    if any(reductions.count(stride) != 1 for stride in STRIDES):
        raise ConfigError(
            f"the stages of timm's {name} lie at strides {', '.join(map(str, reductions))} and a teacher needs one "
            "each at 4, 8, 16 and 32; choose another model"
        )
    return tuple(reductions.index(stride) for stride in STRIDES)


def _extractor(name: str, places: tuple[int, ...], weights: Mapping[str, Tensor]) -> nn.Module:
    overlay = {"state_dict": dict(weights)}
    return timm.create_model(
        name, pretrained=True, features_only=True, out_indices=places, pretrained_cfg_overlay=overlay
    )


def _fetched(name: str, places: tuple[int, ...], settings: TeacherSettings) -> nn.Module:
    if settings.sha256 is not None:
        raise ConfigError("teacher.sha256 is for a weights file, and timm's own are checked by timm; remove it")
    try:
        return timm.create_model(name, pretrained=True, features_only=True, out_indices=places)
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"timm could not fetch the weights of {name}; download the file and name its path instead"
        ) from error


@torch.no_grad()
def _try(name: str, stages: TimmStages, widths: tuple[int, ...]) -> None:
    """One look through the network, for those that want another size or give their channels last."""
    side = 64
    expected = [(1, width, side // stride, side // stride) for width, stride in zip(widths, STRIDES, strict=True)]
    try:
        found = [tuple(stage.shape) for stage in stages(torch.zeros(1, 3, side, side))]
    except (RuntimeError, ValueError, AssertionError) as error:
        raise ConfigError(f"timm's {name} takes no {side} x {side} images; choose a convolutional model") from error
    if found != expected:
        raise ConfigError(f"timm's {name} gives its stages in shapes {found}, not {expected}; choose another model")
