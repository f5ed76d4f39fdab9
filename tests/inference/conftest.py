"""A run that needs no training, and phantoms on disk, for whoever predicts."""

from pathlib import Path

import pytest
import torch

from fed_fsad import methods
from fed_fsad.config import parse_config
from fed_fsad.data.phantoms.disk import Order, write_phantoms
from fed_fsad.rundir import RunDir
from fed_fsad.seeds import torch_stream
from server.checkpoint import Checkpoint, save_checkpoint

TEXT = """
name: small
data: {kind: phantoms, pool: 4}
hospitals:
  - {name: north, holds: {organs: [oct], normal: 8, abnormal: 8}}
methods:
  d24fad: {teacher: {name: random}, image_size: 64}
  sdmad: {model: random, signs: [SIGNS]}
evaluation: {shots: [2]}
"""


def write_run(folder: Path, signs: str = "phantoms", spoil: float = 0.0, local: tuple[str, ...] = ()) -> Path:
    """A run of both methods with two rounds of different tensors, as a server leaves it; `spoil` is added to them,
    `local` are SD-MAD's local parts.
    """
    parts = f"methods.sdmad.local_parts=[{', '.join(local)}]"
    config = parse_config(TEXT.replace("SIGNS", signs), "small.yaml", [parts])
    run = RunDir.create(folder, config)
    built = {name: methods.build(name, block, config.seed) for name, block in config.training.items()}
    for round_ in (1, 2):
        tensors = {
            name: {
                key: value + spoil + 0.02 * round_ * torch.randn(value.shape, generator=torch_stream(round_, name, key))
                for key, value in method.snapshot().items()
            }
            for name, method in built.items()
        }
        texts = {name: method.texts_id for name, method in built.items()}
        save_checkpoint(run.checkpoints, Checkpoint(run.run_id, round_, tensors, {}, texts=texts))
    return folder


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory; nobody writes into it."""
    return write_run(tmp_path_factory.mktemp("run") / "small")


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms of the retina in layers, 4 normal and 4 abnormal per split, with their manifest; nobody writes there."""
    folder = tmp_path_factory.mktemp("drawn") / "oct"
    write_phantoms(folder, Order("oct", 4, 4, 64, 0, 1, 3), lambda done, of: None)
    return folder
