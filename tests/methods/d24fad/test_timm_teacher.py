"""Teachers out of timm, and torchvision's largest: true shapes, random weights, and what does not fit."""

from pathlib import Path

import pytest
import timm
import torch
import torchvision.models
from safetensors.torch import save_file
from torch import nn

from fed_fsad.errors import CheckpointError, ConfigError
from fed_fsad.methods.d24fad import timm_teacher
from fed_fsad.methods.d24fad.backbones import TORCHVISION, TorchvisionStages, build_teacher
from fed_fsad.methods.d24fad.settings import TeacherSettings
from fed_fsad.methods.d24fad.student import Student
from tests.methods.d24fad.helpers import SIZE, images


def saved(name: str, folder: Path) -> tuple[TeacherSettings, nn.Module]:
    """A timm network with random weights and statistics, and the settings that name its file."""
    torch.manual_seed(3)
    network = timm.create_model(name, pretrained=False).eval()
    for key, value in network.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    path = folder / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return TeacherSettings(name=f"timm/{name}", weights=str(path)), network


@pytest.mark.parametrize(
    ("name", "widths"), [("resnet10t", (64, 128, 256, 512)), ("mobilenetv3_small_050", (8, 16, 24, 288))]
)
def test_a_timm_backbone_gives_its_own_stages_and_a_student_mirrors_them(
    name: str, widths: tuple[int, ...], tmp_path: Path
) -> None:
    settings, network = saved(name, tmp_path)
    state = torch.random.get_rng_state()
    teacher = build_teacher(settings, 0)
    assert torch.equal(state, torch.random.get_rng_state())
    assert teacher.anatomy.widths == widths
    mean, std = (torch.tensor(network.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = network.forward_intermediates((images(2) - mean) / std, intermediates_only=True)
    stages = teacher.stages(images(2))
    for stage in stages:
        assert any(stage.shape == other.shape and torch.allclose(stage, other, atol=1e-4) for other in expected)
    decoded = Student(teacher.anatomy, "group")(stages[3])
    assert [tuple(f.shape[1:]) for f in decoded] == [tuple(stage.shape[1:]) for stage in stages[:3]]
    bare = build_teacher(settings.model_copy(update={"input_norm": "none"}), 0)
    with torch.no_grad():
        assert torch.allclose(bare.stages((images(2) - mean) / std)[3], stages[3], atol=1e-5)
    assert bare.hash != teacher.hash


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_tiny_patch16_224", "lie at strides 16, 16, 16 and a teacher needs one each at 4, 8, 16 and 32"),
        ("swin_tiny_patch4_window7_224", "takes no 64 x 64 images; choose a convolutional model"),
    ],
)
def test_stages_that_do_not_fit_are_refused(name: str, message: str, tmp_path: Path) -> None:
    settings, _ = saved(name, tmp_path)
    with pytest.raises(ConfigError, match=message):
        build_teacher(settings, 0)


def test_what_timm_does_not_have_or_cannot_fetch_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="timm has no model 'nothing'"):
        build_teacher(TeacherSettings(name="timm/nothing", weights="pretrained"), 0)
    settings, _ = saved("resnet10t", tmp_path)
    with pytest.raises(CheckpointError, match="does not fit the network"):
        build_teacher(settings.model_copy(update={"name": "timm/resnet14t"}), 0)
    with pytest.raises(ConfigError, match="timm's own are checked by timm"):
        build_teacher(TeacherSettings(name="timm/resnet10t", weights="pretrained", sha256="0" * 64), 0)
    create = timm.create_model

    def offline(name: str, pretrained: bool, **options: object) -> nn.Module:
        if pretrained:
            raise OSError("no network")
        return create(name, pretrained=False, **options)

    monkeypatch.setattr(timm_teacher.timm, "create_model", offline)
    with pytest.raises(CheckpointError, match="download the file and name its path"):
        build_teacher(TeacherSettings(name="timm/resnet10t", weights="pretrained"), 0)


def test_the_fetched_weights_are_timms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, network = saved("resnet10t", tmp_path)
    create = timm.create_model
    overlay = {"state_dict": network.state_dict()}

    def online(name: str, pretrained: bool, **options: object) -> nn.Module:
        given = {"pretrained_cfg_overlay": overlay} if pretrained else {}
        return create(name, pretrained=pretrained, **{**given, **options})

    monkeypatch.setattr(timm_teacher.timm, "create_model", online)
    fetched = build_teacher(TeacherSettings(name="timm/resnet10t", weights="pretrained"), 0)
    assert fetched.hash == build_teacher(settings, 0).hash


def test_a_narrow_network_gets_basic_blocks_and_a_wide_one_bottlenecks(tmp_path: Path) -> None:
    with torch.device("meta"):
        wide = timm.create_model("resnet50", features_only=True)
    assert timm_teacher.squeeze_of(tuple(wide.feature_info.channels())[1:]) == 4
    assert timm_teacher.squeeze_of((64, 128, 256, 512)) is None
    assert timm_teacher.squeeze_of((258, 512, 1024, 2048)) is None


@pytest.mark.parametrize("name", ["resnet34", "wide_resnet101_2"])
def test_torchvisions_networks_have_the_shapes_that_students_mirror(name: str) -> None:
    anatomy = TORCHVISION[name]
    with torch.device("meta"):
        stages = TorchvisionStages(getattr(torchvision.models, name)())(torch.empty(1, 3, SIZE, SIZE))
        decoded = Student(anatomy, "batch").eval()(stages[3])
    assert tuple(stage.shape[1] for stage in stages) == anatomy.widths
    assert [tuple(f.shape) for f in decoded] == [tuple(stage.shape) for stage in stages[:3]]
