"""Teachers by name: what they compute, what names them, and what a wrong weights file says."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision.models
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from fed_fsad.errors import CheckpointError, ConfigError
from fed_fsad.methods.d24fad import backbones
from fed_fsad.methods.d24fad.backbones import build_teacher
from fed_fsad.methods.d24fad.resnet import SmallResNet
from fed_fsad.methods.d24fad.settings import TeacherSettings
from fed_fsad.methods.d24fad.teacher import Teacher
from tests.methods.d24fad.helpers import images

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def teacher_settings(**values: object) -> TeacherSettings:
    return TeacherSettings.model_validate(values)


def resnet(name: str, seed: int = 1) -> nn.Module:
    """A torchvision network whose BatchNorm statistics are not the trivial ones."""
    torch.manual_seed(seed)
    network: nn.Module = getattr(torchvision.models, name)(weights=None)
    for key, value in network.state_dict().items():
        if "running_mean" in key:
            value.uniform_(-0.1, 0.1)
        elif "running_var" in key:
            value.uniform_(0.5, 1.5)
    return network.eval()


def make_v1(network: nn.Module) -> None:
    """Caffe's ResNet-50 out of torchvision's."""
    for name, module in network.named_modules():
        if name in {f"layer{i}.0.conv{j}" for i in (2, 3, 4) for j in (1, 2)}:
            assert isinstance(module, nn.Conv2d)
            module.stride = (2, 2) if name.endswith("conv1") else (1, 1)
    network.add_module("maxpool", nn.MaxPool2d(3, 2, 0, ceil_mode=True))


def expected_stages(network: nn.Module, batch: Tensor) -> list[Tensor]:
    nodes = {f"layer{i}": f"f{i}" for i in range(1, 5)}
    with torch.no_grad():
        return list(create_feature_extractor(network, nodes)((batch - MEAN) / STD).values())


def assert_same(ours: tuple[Tensor, ...], theirs: list[Tensor], tolerance: float = 1e-4) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert b.std() > 0
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(b.abs().max()))


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    network = resnet("resnet18")
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(network.state_dict(), path)
    return path, network


def test_a_torchvision_file_gives_torchvisions_features(resnet18: tuple[Path, nn.Module]) -> None:
    path, network = resnet18
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    teacher = build_teacher(teacher_settings(name="resnet18", weights=str(path), sha256=digest), 0)
    assert_same(teacher.stages(images(2)), expected_stages(network, images(2)))
    assert teacher.anatomy.widths == tuple(feature.shape[1] for feature in teacher.stages(images(1)))


def test_a_pth_file_serves_as_well(resnet18: tuple[Path, nn.Module], tmp_path: Path) -> None:
    path, network = resnet18
    torch.save(network.state_dict(), tmp_path / "resnet18.pth")
    ours = build_teacher(teacher_settings(name="resnet18", weights=str(tmp_path / "resnet18.pth")), 0)
    assert ours.hash == build_teacher(teacher_settings(name="resnet18", weights=str(path)), 0).hash


def test_variant_v1_strides_in_the_first_convolution(tmp_path: Path) -> None:
    """As the files converted from Caffe want it; half precision is read as float32."""
    network = resnet("resnet50").half().float()
    state = {name: value.half() for name, value in network.state_dict().items() if value.is_floating_point()}
    save_file(state, tmp_path / "v1.safetensors")
    make_v1(network)
    named = {"name": "resnet50", "weights": str(tmp_path / "v1.safetensors")}
    teacher = build_teacher(teacher_settings(**named, variant="v1"), 0)
    v1 = teacher.stages(images(1))
    assert_same(v1, expected_stages(network, images(1)))
    torchvisions = build_teacher(teacher_settings(**named), 0)
    default = torchvisions.stages(images(1))
    assert torchvisions.hash != teacher.hash
    assert default[0].shape == v1[0].shape
    assert (default[3] - v1[3]).abs().max() > 0.1 * v1[3].abs().max()


@pytest.mark.real_data
def test_the_pruned_resnet50_loads_as_its_card_says(pruned_resnet50: Path) -> None:
    network = resnet("resnet50")
    make_v1(network)
    left = network.load_state_dict({k: v.float() for k, v in load_file(pruned_resnet50).items()}, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in left.missing_keys)
    named = teacher_settings(name="resnet50", weights=str(pruned_resnet50), variant="v1")
    assert_same(build_teacher(named, 0).stages(images(1)), expected_stages(network, images(1)))


def test_weights_by_name_come_through_torchvision(
    resnet18: tuple[Path, nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, network = resnet18
    asked: list[str] = []

    def fetch(url: str, **options: object) -> dict[str, Tensor]:
        asked.append(url)
        if len(asked) > 1:
            raise URLError("no network")
        return network.state_dict()

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    named = teacher_settings(name="resnet18", weights="IMAGENET1K_V1")
    assert build_teacher(named, 0).hash == build_teacher(teacher_settings(name="resnet18", weights=str(path)), 0).hash
    assert asked[0].endswith(".pth")
    with pytest.raises(CheckpointError, match="download the file and name its path"):
        build_teacher(named, 0)
    with pytest.raises(ConfigError, match="sha256 is for a weights file"):
        build_teacher(teacher_settings(name="resnet18", weights="IMAGENET1K_V1", sha256="0" * 64), 0)


def test_the_embedded_teacher_is_the_small_network_with_the_wheels_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    network = SmallResNet().eval()
    monkeypatch.setattr(
        backbones, "load_asset", lambda relative: {k: v.clone() for k, v in network.state_dict().items()}
    )
    teacher = build_teacher(teacher_settings(name="embedded"), 0)
    with torch.no_grad():
        assert_same(teacher.stages(images(2)), list(network((images(2) - MEAN) / STD)))


def test_the_untrained_teacher_follows_its_seed_alone() -> None:
    state = torch.random.get_rng_state()
    first, again, other = (build_teacher(teacher_settings(name="random"), seed) for seed in (7, 7, 8))
    assert torch.equal(state, torch.random.get_rng_state())
    assert first.hash == again.hash != other.hash


def test_the_hash_sees_every_weight() -> None:
    teachers = [build_teacher(teacher_settings(name="random"), 7) for _ in range(2)]
    for name, value in teachers[1]._network.state_dict().items():
        if name == "stages.3.0.bn2.running_var":
            value[5] += 1e-3
    changed = Teacher(teachers[1]._network, teachers[1].anatomy, "random/v1.5")
    assert changed.hash != teachers[0].hash
    kept = Teacher(teachers[0]._network, teachers[0].anatomy, "random/v1.5")
    assert kept.hash == teachers[0].hash


def test_the_hash_tells_variants_of_equal_tensors_apart() -> None:
    """v1 and v1.5 differ in strides alone; features of one must never be taken for the other's."""
    network = SmallResNet()
    anatomy = build_teacher(teacher_settings(name="random"), 0).anatomy
    assert Teacher(network, anatomy, "resnet50/v1").hash != Teacher(network, anatomy, "resnet50/v1.5").hash


def spoil_shape(state: dict[str, Tensor]) -> None:
    state["layer1.0.conv1.weight"] = state["layer1.0.conv1.weight"][:, :3].clone()


def spoil_missing(state: dict[str, Tensor]) -> None:
    del state["layer4.1.bn2.running_var"]


def spoil_extra(state: dict[str, Tensor]) -> None:
    state["layer1.0.conv3.weight"] = torch.zeros(1)


def spoil_value(state: dict[str, Tensor]) -> None:
    state["conv1.weight"] = torch.full_like(state["conv1.weight"], float("nan"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_shape, "first 'layer1.0.conv1.weight'"),
        (spoil_missing, "first 'layer4.1.bn2.running_var'"),
        (spoil_extra, "first 'layer1.0.conv3.weight'"),
        (spoil_value, "not finite"),
    ],
)
def test_weights_of_another_network_are_refused(
    spoil: Callable[[dict[str, Tensor]], None], message: str, resnet18: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    state = dict(resnet18[1].state_dict())
    spoil(state)
    save_file(state, tmp_path / "wrong.safetensors")
    with pytest.raises(CheckpointError, match=message):
        build_teacher(teacher_settings(name="resnet18", weights=str(tmp_path / "wrong.safetensors")), 0)


def test_a_damaged_file_is_refused(resnet18: tuple[Path, nn.Module], tmp_path: Path) -> None:
    content = resnet18[0].read_bytes()
    for name in ("cut.safetensors", "cut.pth"):
        (tmp_path / name).write_bytes(content[:5000])
        with pytest.raises(CheckpointError, match="no readable weights file"):
            build_teacher(teacher_settings(name="resnet18", weights=str(tmp_path / name)), 0)


def test_a_file_of_another_hash_is_refused(resnet18: tuple[Path, nn.Module]) -> None:
    with pytest.raises(CheckpointError, match="does not hash to"):
        build_teacher(teacher_settings(name="resnet18", weights=str(resnet18[0]), sha256="0" * 64), 0)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"no weights file nowhere\.pth"):
        build_teacher(teacher_settings(name="resnet18", weights="nowhere.pth"), 0)


class Bomb:
    """Runs code when it is unpickled carelessly."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path(self.target),)  # type: ignore[return-value]

    target = ""


def test_a_file_never_runs_code(tmp_path: Path) -> None:
    bomb = Bomb()
    bomb.target = str(tmp_path / "ran")
    (tmp_path / "bomb.pth").write_bytes(pickle.dumps(bomb, protocol=2))
    with pytest.raises(CheckpointError, match="no readable weights file"):
        build_teacher(teacher_settings(name="resnet18", weights=str(tmp_path / "bomb.pth")), 0)
    assert not (tmp_path / "ran").exists()


def test_a_file_with_more_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "epoch": 3}, tmp_path / "run.pth")
    with pytest.raises(CheckpointError, match="state_dict alone"):
        build_teacher(teacher_settings(name="resnet18", weights=str(tmp_path / "run.pth")), 0)
