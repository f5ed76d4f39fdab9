"""A detector as one ONNX graph: (images, bank) to (score, map), for programs without PyTorch."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from fed_fsad.data.features import Rows
from fed_fsad.data.images import FileSource
from fed_fsad.data.samples import Sample
from fed_fsad.durable import replace
from fed_fsad.errors import ConfigError
from fed_fsad.inference.trained import Trained
from fed_fsad.methods.d24fad.detector import D24FAD
from fed_fsad.methods.method import SupportBank

TOLERANCE = 1e-4
"""Largest difference between the graph's scores and maps and PyTorch's, as far as they are above 1, relative."""


class Detector(nn.Module):
    """A detector's own features and scores, as a network of images and bank tensors.

    names: of the bank's tensors, in the order in which `forward` takes them.
    """

    def __init__(self, method: D24FAD, names: Sequence[str]) -> None:
        super().__init__()
        self._method = method
        self._names = tuple(names)

    def forward(self, image: Tensor, bank: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """image: [B, 3, S, S] in [0, 1]. bank: [K, ...] each. Gives scores [B] and maps [B, S, S]."""
        held = dict(zip(self._names, bank, strict=True))
        scores = self._method.score_at_once(self._method.features(image), held)
        assert scores.map is not None
        return scores.image, scores.map


def export(model: Trained, out: Path) -> float:
    """Write the graph of a detector and return its largest difference from PyTorch on a trial.

    Inputs: "image" and those tensors of a saved bank that the score uses, by their names; any number of either. Raises
    ConfigError without the packages, for a method or settings that no graph can hold, or when the trial fails.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  (the exporter needs it)
    except ImportError as error:
        raise ConfigError(f"export needs {error.name}: pip install 'fed-fsad[onnx]'") from error
    method = model.method
    if not isinstance(method, D24FAD):
        raise ConfigError(f"{method.name} cannot be exported; only d24fad can")
    proto = onnx.load_from_string(_graph(method))
    onnx.helper.set_model_props(proto, {"fed_fsad": json.dumps(model.model)})
    content = proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    image, bank = _example(method, 3, 5)
    held = {"image": image, **bank.tensors}
    given = session.run(None, {one.name: held[one.name].numpy() for one in session.get_inputs()})
    scores = method.score(method.features(image), bank)
    assert scores.map is not None
    wanted = (scores.image, scores.map)
    gaps = [((torch.from_numpy(a) - b).abs() / b.abs().clamp(min=1)).max() for a, b in zip(given, wanted, strict=True)]
    if not max(gaps) <= TOLERANCE:
        raise ConfigError(f"the graph differs from PyTorch by {max(gaps):.2g}; update onnx, onnxscript and onnxruntime")
    replace(out, content)
    return float(max(gaps))


def _graph(method: D24FAD) -> bytes:
    """The serialised graph, its numbers of images and of supports left open."""
    image, bank = _example(method, 2, 2)
    names = tuple(bank.tensors)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                Detector(method, names).eval(),
                (image, list(bank.tensors.values())),
                input_names=["image", *names],
                output_names=["score", "map"],
                dynamic_shapes=({0: "images"}, [{0: "supports"} for _ in names]),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ConfigError(
            "the graph of this model cannot be left open for any number of supports; export a run of the default "
            f"preset ({type(error).__name__})"
        ) from error
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


def _example(method: D24FAD, images: int, supports: int) -> tuple[Tensor, SupportBank]:
    """Images [B, 3, S, S] of noise, and a bank of others."""
    size = method.image_size
    noise = torch.rand(images + supports, 3, size, size, generator=torch.Generator().manual_seed(0))
    nowhere = FileSource(Path("noise"), None, Path(), True)
    samples = tuple(Sample(f"noise {i}", "noise", (), None, nowhere) for i in range(supports))
    return noise[:images], method.fit_support(Rows(method.features(noise[images:]), samples), "noise")
