"""A cache in whole runs: the same model to the last bit, and nothing of it in the run or in what leaves a site."""

from pathlib import Path

import pytest
import torch
from flwr.app import Context, RecordDict

from clients.settings import load_settings
from clients.site import open_site
from fed_fsad import residents
from fed_fsad.config import parse_config
from fed_fsad.data.feature_store import FOLDER
from fed_fsad.errors import ConfigError
from fed_fsad.machine import MachineSettings
from fed_fsad.methods import build
from fed_fsad.progress import PlainProgress
from fed_fsad.residents import use
from server.checkpoint import load_checkpoint
from simulations.simulate import simulate

RUN = """
name: cached
data: {kind: phantoms, test_normal: 2, test_abnormal: 4, pool: 2}
hospitals:
  - {name: north, holds: {organs: [oct], normal: 4, abnormal: 4}}
methods: {sdmad: {local_steps: 2, batch: 4}}
federation: {rounds: 1}
evaluation: {shots: [2], draws: 1}
arms: []
"""


def model_of(folder: Path, machine: str) -> dict[str, torch.Tensor]:
    """The tensors a run ends with, in a process that has nothing in memory."""
    use(MachineSettings(device="auto"))
    use(MachineSettings())
    config = parse_config(RUN + machine, "run.yaml")
    run = simulate(config, folder, PlainProgress())
    start = {"sdmad": build("sdmad", config.training["sdmad"], config.seed).snapshot()}
    checkpoint = load_checkpoint(run.checkpoints, run.run_id, start)
    use(MachineSettings())
    assert checkpoint is not None
    return dict(checkpoint.tensors["sdmad"])


@pytest.mark.slow
def test_a_run_with_a_cache_ends_in_the_same_bits_and_holds_nothing_of_it(tmp_path: Path) -> None:
    told = f"machine: {{cache: {{path: {tmp_path / 'cache'}}}}}"
    plain = model_of(tmp_path / "plain", "")
    filled = model_of(tmp_path / "first", told)
    kept = {path: path.stat().st_ino for path in (tmp_path / "cache" / FOLDER).glob("??/*.safetensors")}
    read = model_of(tmp_path / "second", told)
    assert len(kept) >= 14
    assert {path: path.stat().st_ino for path in kept} == kept, "nothing was written anew"
    for other in (filled, read):
        assert all(torch.equal(plain[name], tensor) for name, tensor in other.items())
    assert not list((tmp_path / "first").rglob(f"*{FOLDER}*"))
    names = {path.stem for path in kept}
    assert not names & {path.stem for path in (tmp_path / "first").rglob("*")}


def site(folder: Path, machine: str) -> Path:
    (folder / "policy.yaml").write_text("privacy: off\n")
    (folder / "site.yaml").write_text(
        "name: north\ndata: {kind: phantoms, organs: [oct], normal: 4, abnormal: 2}\n"
        f"policy: policy.yaml\nstate: state\n{machine}"
    )
    return folder / "site.yaml"


def test_a_site_uses_what_its_own_file_says(tmp_path: Path) -> None:
    path = site(tmp_path, f"machine: {{cache: {{path: {tmp_path / 'cache'}, gib: 1}}}}\n")
    try:
        open_site(Context(1, 2, {"site-config": str(path)}, RecordDict(), {}))
        assert residents._machine == load_settings(path).machine
        assert (tmp_path / "cache" / FOLDER).is_dir()
    finally:
        use(MachineSettings())


def test_a_site_with_a_gpu_that_is_not_there_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = site(tmp_path, "machine: {device: cuda}\n")
    with pytest.raises(ConfigError, match=r"machine\.device is cuda and torch finds 0 GPUs"):
        open_site(Context(1, 2, {"site-config": str(path)}, RecordDict(), {}))
