"""What a student starts from and what of it trains.

The light student: frozen kernels, each with a low-rank update that trains (after LoRA, Hu et al. 2022).
"""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fed_fsad.assets import load_asset
from fed_fsad.methods.d24fad.checkpoint import put_in_place, read_weights
from fed_fsad.methods.d24fad.settings import Settings

log = logging.getLogger(__name__)

ASSET = "student/weights.safetensors"
PARAMETRIZED = ".parametrizations.weight.0"


class LowRank(nn.Module):
    """A kernel plus up @ down, zero at first: kernel [O, ...] seen as a matrix [O, N], up [O, r], down [r, N]."""

    def __init__(self, kernel: Tensor, rank: int) -> None:
        super().__init__()
        rows, columns = kernel.shape[0], kernel[0].numel()
        rank = min(rank, rows, columns)
        self.down = nn.Parameter(torch.randn(rank, columns) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, kernel: Tensor) -> Tensor:
        return kernel + (self.up @ self.down).view_as(kernel)


def start(settings: Settings, student: nn.Module, weighting: nn.Module) -> None:
    """Put the weights of `student_weights` in place, or a light student's own; make a light student light.

    Raises CheckpointError when they do not fit.
    """
    light = settings.student == "light"
    both = nn.ModuleDict({"student": student, "weighting": weighting})
    # A file of weights need not hold the factors of l2w_scale: learned; they start at 1.
    factors = {name: value for name, value in both.state_dict().items() if name.endswith("log_factor")}
    if settings.student_weights is not None:
        put_in_place(both, factors | read_weights(Path(settings.student_weights)), settings.student_weights)
    elif light and settings.teacher.name == "embedded":
        put_in_place(both, factors | load_asset(ASSET), "the embedded student")
    elif light:
        log.warning(
            "there is no trained student for teacher %s: the light one updates a random student of the run's seed; "
            "name one in student_weights",
            settings.teacher.name,
        )
    if light:
        lighten(both, settings.rank)


def lighten(network: nn.Module, rank: int) -> None:
    """Freeze every convolution of a network and give its kernel an update of at most that rank."""
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.requires_grad_(False)
            parametrize.register_parametrization(module, "weight", LowRank(module.weight, rank))


def student_parts(student: nn.Module) -> dict[str, Tensor]:
    """What trains of a student, by "part/parameter": affine, and kernels or their low-rank updates."""
    found: dict[str, Tensor] = {}
    for owner, module in student.named_modules():
        part = "affine"
        if isinstance(module, LowRank):
            part = "lowrank"
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            part = "kernels"
        for leaf, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                found[f"{part}/{owner.replace(PARAMETRIZED, '')}.{leaf}"] = parameter
    return found


def weighting_parts(weighting: nn.Module) -> dict[str, Tensor]:
    """What trains of learn-to-weight, whole or low-rank: all of it is the part `weighting`."""
    named = weighting.named_parameters()
    return {f"weighting/{name.replace(PARAMETRIZED, '')}": value for name, value in named if value.requires_grad}
