"""The exported graph beside PyTorch, on numbers of images and supports that it was not made with."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision.models
from safetensors.torch import save_file

from fed_fsad.config import parse_config
from fed_fsad.data.features import Rows
from fed_fsad.data.images import FileSource
from fed_fsad.data.samples import Sample
from fed_fsad.errors import ConfigError
from fed_fsad.inference import onnx
from fed_fsad.inference.trained import Trained
from fed_fsad.methods import d24fad
from tests.inference.conftest import TEXT


def trained(**settings: object) -> Trained:
    """An untrained D²4FAD, as a run would hold it."""
    config = parse_config(TEXT.replace("SIGNS", "phantoms"), "small.yaml")
    method = d24fad.build(d24fad.Settings.model_validate(settings), 1)
    return Trained(method, config, "run", 1, {"method": "d24fad"})


def largest_gap(model: Trained, path: Path, images: int, supports: int) -> float:
    """Between the graph's and the method's own scores and maps."""
    method, size = model.method, model.method.image_size
    stream = torch.Generator().manual_seed(images + supports)
    drawn = torch.rand(images + supports, 3, size, size, generator=stream)
    nowhere = FileSource(Path("x"), None, Path(), True)
    samples = tuple(Sample(str(i), "any", (), None, nowhere) for i in range(supports))
    bank = method.fit_support(Rows(method.features(drawn[images:]), samples), "any")
    wanted = method.score(method.features(drawn[:images]), bank)
    held = {"image": drawn[:images], **bank.tensors}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    given = session.run(["score", "map"], {one.name: held[one.name].numpy() for one in session.get_inputs()})
    assert wanted.map is not None
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(given, (wanted.image, wanted.map), strict=True))


@pytest.mark.slow
def test_the_graph_gives_what_pytorch_gives_and_one_that_does_not_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(image_size=64)
    made = tmp_path / "model.onnx"
    assert onnx.export(model, made) <= 1e-4
    for images, supports in ((1, 1), (2, 2), (5, 3)):
        assert largest_gap(model, made, images, supports) <= 1e-4
    monkeypatch.setattr(onnx, "_graph", lambda method: made.read_bytes())
    monkeypatch.setattr(onnx, "TOLERANCE", -1.0)
    with pytest.raises(ConfigError, match="the graph differs from PyTorch by"):
        onnx.export(model, tmp_path / "other.onnx")
    assert list(tmp_path.iterdir()) == [made]


@pytest.mark.slow
def test_the_graph_of_the_published_score_and_another_teacher(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "weights.safetensors")
    teacher = {"name": "resnet18", "weights": str(tmp_path / "weights.safetensors")}
    model = trained(image_size=64, teacher=teacher, score="d24fad")
    onnx.export(model, tmp_path / "model.onnx")
    assert largest_gap(model, tmp_path / "model.onnx", 3, 4) <= 1e-4
