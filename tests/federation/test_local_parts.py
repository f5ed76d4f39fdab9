"""Whole federations in which a part of each method stays at the hospitals, and in which their categories differ."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fed_fsad import methods
from fed_fsad.config import Config, parse_config
from fed_fsad.methods.method import part_of
from fed_fsad.progress import PlainProgress
from fed_fsad.rundir import Resume, RunDir
from server.checkpoint import load_checkpoint
from simulations.simulate import simulate

TEXT = """
name: local
data: {kind: phantoms, test_normal: 4, test_abnormal: 6, pool: 4}
hospitals:
  - {name: north, holds: {organs: [oct], normal: 8, abnormal: 4}, policy: {release_metrics: true}}
  - {name: south, holds: {organs: [liver_ct], normal: 8, abnormal: 4, style: 1}}
methods:
  d24fad: {teacher: {name: random}, image_size: 64, local_steps: 1, batch: 4, local_parts: [weighting]}
  sdmad:
    {model: random, local_steps: 1, batch: 4, local_parts: [context], context: per_category, text_bottleneck: 4,
     image_bottleneck: 4}
federation: {rounds: 3}
evaluation: {shots: [2], draws: 1, unseen_task: brain_mri, every: 3}
arms: []
"""


def finished(folder: Path, *overrides: str, resume: Resume = "fresh") -> RunDir:
    return simulate(parse_config(TEXT, "local.yaml", overrides), folder, PlainProgress(), resume)


def everything(run: RunDir) -> dict[str, bytes]:
    """The checkpoints, and what lies in the hospitals' state folders."""
    return {
        str(path.relative_to(run.path)): path.read_bytes()
        for folder in ("checkpoints", "sites")
        for path in sorted((run.path / folder).rglob("*.safetensors"))
    }


def starts(config: Config) -> dict[str, dict[str, Tensor]]:
    return {name: methods.build(name, block, config.seed).snapshot() for name, block in config.training.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return finished(tmp_path_factory.mktemp("local"))


def test_the_server_keeps_the_start_and_every_hospital_has_its_own(run: RunDir) -> None:
    start = starts(run.config())
    found = load_checkpoint(run.checkpoints, run.run_id, start)
    assert found is not None
    for method, own in start.items():
        local = set(run.config().training[method].local_parts)
        for name, tensor in own.items():
            stayed = torch.equal(found.tensors[method][name], tensor)
            assert stayed or part_of(name) not in local, name
        assert any(not torch.equal(found.tensors[method][name], tensor) for name, tensor in own.items())
    files = everything(run)
    kept = {tuple(Path(name).parts[1:3]) for name in files if name.startswith("sites")}
    assert kept == {("north", "local"), ("south", "local")}
    contexts = {files[name] for name in files if name.endswith("sdmad/000003.safetensors")}
    assert len(contexts) == 2, "two hospitals, two sets of contexts"
    warnings = [event["text"] for event in run.events() if event["kind"] == "warning"]
    assert {"weighting of d24fad stay at the sites", "context of sdmad stay at the sites"} <= {
        text.split(";")[0] for text in warnings
    }
    assert {"north"} == {event["site"] for event in run.events() if event["kind"] == "site_evaluation"}


def test_a_server_that_lost_a_round_goes_on_to_the_same_bits(run: RunDir) -> None:
    """The hospitals are a round ahead of it then: what they kept of that round must not enter it again."""
    before = everything(run)
    (run.checkpoints / "round-0003.safetensors").unlink()
    latest, second = run.checkpoints / "latest.json", run.checkpoints / "round-0002.safetensors"
    digest = hashlib.sha256(second.read_bytes()).hexdigest()
    told = json.loads(latest.read_text(encoding="utf-8")) | {"round": 2, "file": second.name, "sha256": digest}
    latest.write_text(json.dumps(told), encoding="utf-8")
    finished(run.path, resume="require")
    assert everything(run) == before


def test_rows_of_a_category_follow_the_hospitals_that_have_it(tmp_path: Path) -> None:
    shared = ("methods={sdmad: {model: random, local_steps: 1, trainable: [context], context: per_category}}",)
    start = starts(parse_config(TEXT, "local.yaml", shared))["sdmad"]
    run = finished(tmp_path, *shared, "federation.rounds=1")
    found = load_checkpoint(run.checkpoints, run.run_id, starts(run.config()))
    assert found is not None
    moved = {
        name.split("/")[1].split(":")[0] for name in start if not torch.equal(found.tensors["sdmad"][name], start[name])
    }
    assert moved == {"oct", "liver_ct"}, "organs that no hospital has keep their contexts"


@pytest.mark.slow
def test_ray_and_the_process_itself_give_equal_bits(run: RunDir, tmp_path: Path) -> None:
    one, two = run, finished(tmp_path / "ray", "engine=ray")
    names = [{name for name in everything(run) if name.startswith("checkpoints")} for run in (one, two)]
    assert names[0] == names[1]
    assert all(everything(one)[name] == everything(two)[name] for name in names[0])
