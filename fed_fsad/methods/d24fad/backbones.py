"""Teachers by name: embedded, untrained, torchvision's ResNets or a network of timm, with weights by name or file."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
import torchvision.models
from torch import Tensor, nn

from fed_fsad.assets import load_asset
from fed_fsad.errors import CheckpointError, ConfigError
from fed_fsad.methods.d24fad.checkpoint import put_in_place, read_weights
from fed_fsad.methods.d24fad.resnet import BLOCKS, WIDTHS, SmallResNet
from fed_fsad.methods.d24fad.settings import TIMM, TeacherSettings
from fed_fsad.methods.d24fad.teacher import IMAGENET, NONE, Anatomy, Stages, Teacher
from fed_fsad.methods.d24fad.timm_teacher import timm_network
from fed_fsad.seeds import derive

SMALL = Anatomy(WIDTHS, BLOCKS[:3], None)
TORCHVISION = {
    "resnet18": Anatomy((64, 128, 256, 512), (2, 2, 2), None),
    "resnet34": Anatomy((64, 128, 256, 512), (3, 4, 6), None),
    "resnet50": Anatomy((256, 512, 1024, 2048), (3, 4, 6), 4),
    "wide_resnet50_2": Anatomy((256, 512, 1024, 2048), (3, 4, 6), 2),
    "wide_resnet101_2": Anatomy((256, 512, 1024, 2048), (3, 4, 23), 2),
}
HEAD = "fc."


class TorchvisionStages(nn.Module):
    """A torchvision ResNet without its head, under torchvision's parameter names."""

    def __init__(self, resnet: Any) -> None:
        super().__init__()
        self.conv1: nn.Module = resnet.conv1
        self.bn1: nn.Module = resnet.bn1
        self.relu: nn.Module = resnet.relu
        self.maxpool: nn.Module = resnet.maxpool
        self.layer1: nn.Module = resnet.layer1
        self.layer2: nn.Module = resnet.layer2
        self.layer3: nn.Module = resnet.layer3
        self.layer4: nn.Module = resnet.layer4

    def forward(self, x: Tensor) -> Stages:
        """[B, 3, S, S], normalised, to the four stages at strides 4, 8, 16 and 32."""
        f1 = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        f2 = self.layer2(f1)
        f3 = self.layer3(f2)
        return f1, f2, f3, self.layer4(f3)


def build_teacher(settings: TeacherSettings, seed: int) -> Teacher:
    """The teacher that `settings` name; `seed` matters to the untrained one alone.

    Raises CheckpointError when weights are missing, damaged, or made for another network, ConfigError when a hash is
    asked of weights that their library checks by itself or when a timm model's stages do not fit.
    """
    name = f"{settings.name}/{settings.variant}"
    if settings.name.startswith(TIMM):
        with torch.random.fork_rng(devices=[]):
            network, anatomy, own = timm_network(settings)
        return Teacher(network, anatomy, name, NONE if settings.input_norm == "none" else own)
    normalisation = NONE if settings.input_norm == "none" else IMAGENET
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "d24fad", "teacher"))
        resnet = _torchvision_network(settings) if settings.name in TORCHVISION else SmallResNet()
    if settings.name == "embedded":
        put_in_place(resnet, load_asset("teacher/weights.safetensors"), "the embedded teacher")
    if settings.weights is not None:
        put_in_place(resnet, _torchvision_weights(settings, settings.weights), settings.weights)
    return Teacher(resnet, TORCHVISION.get(settings.name, SMALL), name, normalisation)


def _torchvision_network(settings: TeacherSettings) -> TorchvisionStages:
    resnet = getattr(torchvision.models, settings.name)(weights=None)
    if settings.variant == "v1":
        for layer in (resnet.layer2, resnet.layer3, resnet.layer4):
            layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
        resnet.maxpool = nn.MaxPool2d(3, 2, 0, ceil_mode=True)
    return TorchvisionStages(resnet)


def _torchvision_weights(settings: TeacherSettings, weights: str) -> dict[str, Tensor]:
    """Weights by torchvision's name, else the file of that path; without the classification head."""
    known = torchvision.models.get_model_weights(settings.name).__members__
    if weights not in known:
        state = read_weights(Path(weights), settings.sha256)
    elif settings.sha256 is not None:
        raise ConfigError(f"teacher.sha256 is for a weights file, and {weights} is torchvision's own; remove it")
    else:
        try:
            state = known[weights].get_state_dict(progress=False, check_hash=True)
        except (URLError, OSError, RuntimeError) as error:
            raise CheckpointError(
                f"torchvision could not fetch {settings.name} {weights}; download the file and name its path instead"
            ) from error
    return {name: value for name, value in state.items() if not name.startswith(HEAD)}
