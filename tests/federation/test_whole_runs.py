"""Whole federations: one seed gives the same bits, a killed run ends where an unbroken one does, and so does Ray."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from fed_fsad.config import parse_config
from fed_fsad.errors import FederationError
from fed_fsad.evaluation.report import write_report
from fed_fsad.progress import PlainProgress
from fed_fsad.rundir import Resume, RunDir
from simulations.simulate import simulate

COMMAND = [sys.executable, "-m", "fed_fsad.cli", "simulate"]


def finished(text: str, folder: Path, *overrides: str, resume: Resume = "fresh") -> RunDir:
    return simulate(parse_config(text, "small.yaml", overrides), folder, PlainProgress(), resume)


def checkpoint_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "checkpoints").glob("*.safetensors"))}


def test_two_runs_of_one_seed_are_equal_to_the_last_bit_and_another_seed_is_not(
    small_config: str, tmp_path: Path
) -> None:
    one, two = (finished(small_config, tmp_path / name, "federation.rounds=2") for name in ("one", "two"))
    assert checkpoint_bytes(one.path) == checkpoint_bytes(two.path)
    assert len(checkpoint_bytes(one.path)) == 2
    assert one.summary()["methods"] == two.summary()["methods"]
    other = finished(small_config, tmp_path / "other", "federation.rounds=2", "privacy.insecure_noise_seed=8")
    assert checkpoint_bytes(other.path) != checkpoint_bytes(one.path)


def test_a_run_leaves_what_it_promises(small_config: str, tmp_path: Path) -> None:
    run = finished(small_config, tmp_path, "federation.rounds=1", "arms=[pooled, local]")
    summary = run.summary()
    assert (summary["status"], summary["rounds"], summary["error"]) == ("completed", 1, None)
    assert summary["seconds"]["total"] > 0
    assert summary["bytes"]["up"] > 0
    assert summary["bytes"]["down"] > summary["bytes"]["up"], "the DP site sends only its light parts"
    detection, categories = summary["methods"]["d24fad"], summary["methods"]["sdmad"]
    assert set(detection["image_auroc"]) == {"2"}
    assert detection["pixel_auroc"] is not None
    assert {"p1", "p2", "p3", "binary", "held_out"} == set(categories["image_auroc"])
    assert {"knn", "raw_pixels"} <= set(detection["baselines"])
    assert {"zero_shot", "raw_pixels", "linear_probe"} <= set(categories["baselines"])
    for block in (detection, categories):
        assert set(block["arms"]) == {"federated", "pooled", "local", "untrained"}
    west = summary["sites"]["west"]
    assert (west["rounds"], west["failures"], west["unit"], west["delta"]) == (1, 0, "image", 1e-5)
    assert 0 < west["epsilon"] <= 8.0001
    assert summary["sites"]["north"]["examples"] == 16
    assert summary["sites"]["north"]["epsilon"] is None
    kinds = {event["kind"] for event in run.events()}
    assert kinds - {"warning"} == {"skipped", "evaluation", "site", "round", "baseline", "arm"}
    for name in ("config.yaml", "environment.json", "metrics.jsonl", "summary.json", "report.html"):
        assert (tmp_path / name).exists()
    assert (tmp_path / "sites" / "west" / "ledger.jsonl").exists()
    assert "this run protects nobody" in (tmp_path / "report.html").read_text()


def test_a_run_killed_in_round_3_and_resumed_ends_in_the_bits_of_an_unbroken_one(
    small_config: str, tmp_path: Path
) -> None:
    config = tmp_path / "small.yaml"
    config.write_text(small_config)
    broken = tmp_path / "broken"
    ledger = broken / "sites" / "west" / "ledger.jsonl"
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*COMMAND, str(config), "--out", str(broken)], stdout=log, stderr=log)
        deadline = time.monotonic() + 240
        while '"round":3' not in (ledger.read_text() if ledger.exists() else ""):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, "the run never reached round 3"
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (broken / "report.html").exists()
    resumed = finished(small_config, broken, resume="require")
    whole = finished(small_config, tmp_path / "whole")
    assert checkpoint_bytes(resumed.path) == checkpoint_bytes(whole.path)
    assert resumed.summary()["methods"] == whole.summary()["methods"]
    charged = [charges(path) for path in (ledger, tmp_path / "whole" / "sites" / "west" / "ledger.jsonl")]
    assert charged[0] == charged[1], "the round that was interrupted is paid for once"


def charges(ledger: Path) -> list[tuple[Any, ...]]:
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    return [
        (line["request"]["round"], line["request"]["method"], line["release"], line["epsilon_after"])
        for line in lines
        if line["kind"] == "charge"
    ]


def test_a_finished_run_resumed_trains_nothing_and_keeps_its_figures(small_config: str, tmp_path: Path) -> None:
    first = finished(small_config, tmp_path, "federation.rounds=1")
    before, rounds = checkpoint_bytes(tmp_path), [e for e in first.events() if e["kind"] == "round"]
    again = finished(small_config, tmp_path, "federation.rounds=1", resume="require")
    assert checkpoint_bytes(tmp_path) == before
    assert [e for e in again.events() if e["kind"] == "round"] == rounds
    assert again.summary()["methods"] == first.summary()["methods"]


def test_a_federation_that_fails_says_so_in_summary_and_report(small_config: str, tmp_path: Path) -> None:
    impossible = "hospitals.north.policy.smallest_cohort=9", "hospitals.south.policy.smallest_cohort=9"
    with pytest.raises(FederationError, match=r"north: its policy refuses \(cohort too small\)"):
        finished(small_config, tmp_path, *impossible, "federation.retries=0")
    run = RunDir(tmp_path)
    assert run.summary()["status"] == "failed"
    assert "cohort too small" in run.summary()["error"]
    assert "cohort too small" in write_report(tmp_path).read_text()


@pytest.mark.slow
def test_ray_and_the_process_itself_give_equal_bits(small_config: str, tmp_path: Path) -> None:
    here = finished(small_config, tmp_path / "here", "federation.rounds=2")
    ray = finished(small_config, tmp_path / "ray", "federation.rounds=2", "engine=ray")
    assert checkpoint_bytes(here.path) == checkpoint_bytes(ray.path)
    assert here.summary()["methods"] == ray.summary()["methods"]
    assert here.summary()["sites"]["west"]["epsilon"] == ray.summary()["sites"]["west"]["epsilon"]


@pytest.mark.slow
def test_a_run_that_fails_on_ray_is_reported_as_failed_though_flower_exits_with_zero(
    small_config: str, tmp_path: Path
) -> None:
    impossible = [f"hospitals.{site}.policy.smallest_cohort=9" for site in ("north", "south", "west")]
    with pytest.raises(FederationError, match="cohort too small"):
        finished(small_config, tmp_path, *impossible, "federation.retries=0", "engine=ray")
    assert RunDir(tmp_path).summary()["status"] == "failed"
