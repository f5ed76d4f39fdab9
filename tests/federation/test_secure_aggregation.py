"""Secure aggregation with the real apps and both methods: the plain mean to the quantisation step, on both engines, and
whole again after a kill.
"""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from flwr.app.user_config import UserConfig

from clients.app import build_app
from fed_fsad.config import parse_config
from fed_fsad.messages import Instruction
from fed_fsad.methods.method import piece_of
from fed_fsad.privacy.hospital import flat
from fed_fsad.residents import resident
from fed_fsad.rundir import RunDir
from server.aggregate import Aggregator
from server.attempts import Attempt
from server.checkpoint import Checkpoint, load_checkpoint
from server.exchange import Exchange, Question
from server.guard import update_norm
from server.secure.protocol import SecureRounds
from simulations.grid import FIRST_NODE, InProcessGrid
from tests.federation.test_whole_runs import COMMAND, checkpoint_bytes, finished

CLIP = 50.0
STEPS = 2**24
ON = ("privacy.secure_aggregation=on", f"privacy.secure.clip_norm={CLIP:g}", f"privacy.secure.target_range={STEPS}")
OPEN = ("hospitals.west.policy={privacy: off}",)
"""All three hospitals send everything, so every part has a sum."""
FEW = ("hospitals.west.holds.normal=12",)
EAST = """
  - {name: east, holds: {organs: [oct], normal: 8, abnormal: 8, style: 3}}
methods:"""


def test_the_mean_of_both_methods_is_the_plain_one_to_the_quantisation_step(small_config: str, tmp_path: Path) -> None:
    """Four hospitals, one of them under differential privacy, which sends its light parts only."""
    config = parse_config(small_config.replace("\nmethods:", EAST, 1), "small.yaml", [*ON, *FEW])
    run = RunDir.create(tmp_path, config)
    nodes: list[UserConfig] = [{"partition-id": i} for i in range(4)]
    grid = InProcessGrid(build_app(lambda event: None), nodes, {"out": str(run.path)})
    tensors = {name: resident(name, block, config.seed).snapshot() for name, block in config.training.items()}
    instruction = Instruction(
        run="r", round=1, rounds=2, seed=0, threads=1, cohort=4, settings=config.training, tensors=tensors,
        insecure_noise_seed=7,
    )  # fmt: skip
    names = [hospital.name for hospital in config.hospitals]
    questions = [Question(name, FIRST_NODE + i, instruction) for i, name in enumerate(names)]
    plain = Attempt()
    for answer in Exchange(grid, config.federation).ask(questions):
        plain.take(answer, tensors, "silence")
    masked = SecureRounds(grid, config).ask(questions)
    assert (plain.faults, masked.faults) == ({}, {})
    assert masked.total is not None
    for reply in plain.valid:
        assert max(update_norm(own, tensors[method]) for method, own in reply.tensors.items()) < CLIP / 2
    counts = {f"{method}|{piece_of(name)}" for method, own in tensors.items() for name in own}
    assert set(masked.total.counts) == counts
    assert {masked.total.counts[f"d24fad|{part}"] for part in ("affine", "kernels")} == {3, 4}
    for method, start in tensors.items():
        wanted = Aggregator(config.federation).combine(1, method, start, plain.valid)
        found = Aggregator(config.federation).combine(1, method, start, masked.updates(tensors))
        for name, value in wanted.items():
            # half a step of quantisation, and float32 on both sides
            bound = CLIP / STEPS + 4e-7 * float(value.abs().max())
            if masked.total.counts[f"{method}|{piece_of(name)}"]:
                assert float((found[name] - value).abs().max()) <= bound, name
                assert found[name].dtype == value.dtype
    moved = flat({"m": found})
    assert any(not torch.equal(value, flat({"m": start})[name]) for name, value in moved.items())


def checkpoint(run: RunDir) -> Checkpoint:
    config = run.config()
    start = {name: resident(name, block, config.seed).snapshot() for name, block in config.training.items()}
    found = load_checkpoint(run.checkpoints, run.run_id, start)
    assert found is not None
    return found


@pytest.mark.slow
def test_a_whole_run_ends_where_the_plain_one_does_and_on_ray_in_the_same_bits(
    small_config: str, tmp_path: Path
) -> None:
    chosen = (*OPEN, "federation.rounds=1", "evaluation.draws=1")
    plain = checkpoint(finished(small_config, tmp_path / "plain", *chosen))
    here = finished(small_config, tmp_path / "here", *chosen, *ON)
    for method, own in plain.tensors.items():
        for name, value in own.items():
            bound = CLIP / STEPS + 4e-7 * float(value.abs().max())
            assert float((checkpoint(here).tensors[method][name] - value).abs().max()) <= bound, name
    ray = finished(small_config, tmp_path / "ray", *chosen, *ON, "engine=ray")
    assert checkpoint_bytes(here.path) == checkpoint_bytes(ray.path)
    assert here.summary()["methods"] == ray.summary()["methods"]


@pytest.mark.slow
def test_a_run_killed_in_the_middle_of_a_session_and_resumed_ends_in_the_bits_of_an_unbroken_one(
    small_config: str, tmp_path: Path
) -> None:
    config, text = tmp_path / "small.yaml", re.sub(r"  d24fad: .*\n", "", small_config)
    chosen = [*OPEN, *ON, "federation.rounds=2", "evaluation.draws=1"]
    config.write_text(text)
    broken = tmp_path / "broken"
    settings = [word for key in chosen for word in ("--set", key)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*COMMAND, str(config), "--out", str(broken), *settings], stdout=log, stderr=log)
        deadline = time.monotonic() + 240
        while not (
            (broken / "checkpoints" / "round-0001.safetensors").exists()
            and any((broken / "sites").glob("*/secure/*/vector.npy"))
        ):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, "the run never reached a session of round 2"
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert any((broken / "sites").glob("*/secure/*/session.json")), "the kill came in the middle of a session"
    resumed = finished(text, broken, *chosen, resume="require")
    whole = finished(text, tmp_path / "whole", *chosen)
    assert checkpoint_bytes(resumed.path) == checkpoint_bytes(whole.path)
    assert not any((broken / "sites").glob("*/secure/*/session.json"))
