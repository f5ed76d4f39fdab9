"""Whole federations under privacy: what the config, the policies and the report say of each other."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from rich.console import Console

from fed_fsad.cli.simulate import print_result
from fed_fsad.config import load_config, parse_config
from fed_fsad.privacy.account import LEDGER, read_account
from fed_fsad.privacy.audit.finding import HOLDS
from fed_fsad.privacy.guarantees import SIDE_BY_SIDE, SUMS_TO_THE_SERVER, TO_THE_SERVER, guarantees
from fed_fsad.progress import PlainProgress
from simulations.simulate import simulate
from tests.cli.test_cli import _wide_plain_terminal, called
from tests.evaluation.reading import read
from tests.federation.test_secure_aggregation import checkpoint
from tests.federation.test_whole_runs import COMMAND, charges, checkpoint_bytes, finished

__all__ = ["_wide_plain_terminal"]

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "privacy.yaml"
LIGHT = "{largest_rho: 1000, methods: {sdmad: [context]}}"


@pytest.mark.slow
def test_under_both_every_site_trains_privately_and_the_server_hides_the_sites(
    small_config: str, tmp_path: Path
) -> None:
    overrides = [
        "privacy={mode: both, example: {epsilon: 6, delta: 1e-6}, hospital: {epsilon: 20}, insecure_noise_seed: 7}",
        f"hospitals.north.policy={LIGHT}",
        f"hospitals.south.policy={LIGHT}",
        "federation.rounds=2",
        "methods={sdmad: {model: random, local_steps: 1, batch: 4}}",
        "evaluation={shots: [2], draws: 1, every: 2}",
        "data={kind: phantoms, test_normal: 2, test_abnormal: 2, pool: 2}",
    ]
    run = simulate(parse_config(small_config, "small.yaml", overrides), tmp_path, PlainProgress())
    summary = run.summary()
    for site in ("north", "south", "west"):
        told = summary["sites"][site]
        assert (told["delta"], told["unit"], told["examples"]) == (1e-6, "image", None)
        assert told["epsilon"] == pytest.approx(6, abs=1e-4), "the server's 6 is less than west's own 8"
    assert summary["hospital_privacy"]["epsilon"] == pytest.approx(20, abs=1e-4)
    assert (summary["hospital_privacy"]["round"], summary["hospital_privacy"]["cohort"]) == (2, 3)
    assert summary["hospital_privacy"]["claim"].startswith("No guarantee: the noise of 2 releases came from a seeded")
    assert read_account(tmp_path / "privacy").insecure == 2


TINY = (
    "methods={sdmad: {model: random, trainable: [context], local_steps: 1, batch: 4}}",
    "evaluation={shots: [2], draws: 1, every: 2}",
    "data={kind: phantoms, test_normal: 2, test_abnormal: 2, pool: 2}",
    "federation.rounds=2",
)
CENTRAL = "hospital: {epsilon: 20, clip_norm: 0.5}"


@pytest.mark.slow
def test_both_levels_under_masks_are_each_stated_and_a_killed_run_pays_for_nothing_twice(
    small_config: str, tmp_path: Path
) -> None:
    """Noise of the hospitals' own, masks over it, noise of the server on the sum: with real randomness, killed once."""
    asked = f"privacy={{mode: both, secure_aggregation: on, example: {{epsilon: 6}}, {CENTRAL}}}"
    overrides = [*TINY, asked, *(f"hospitals.{site}.policy.largest_rho=1000" for site in ("north", "south", "west"))]
    config = tmp_path / "small.yaml"
    config.write_text(small_config)
    out, words = tmp_path / "run", [word for key in overrides for word in ("--set", key)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([*COMMAND, str(config), "--out", str(out), *words], stdout=log, stderr=log)
        deadline = time.monotonic() + 240
        while '"round":2' not in (text_of(out / "privacy" / LEDGER)):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, "the run never paid for round 2"
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    run = finished(small_config, out, *overrides, resume="auto")
    summary, page = run.summary(), read(run.path).text
    for site in ("north", "south", "west"):
        told = summary["sites"][site]
        assert told["epsilon"] == pytest.approx(6, abs=1e-4)
        assert told["guarantee"].startswith(
            "Image-level differential privacy of this site's training images with ε = 6"
        )
        assert told["guarantee"] in page
        assert [charge[0] for charge in charges(out / "sites" / site / LEDGER)] == [1, 2]
    central = summary["hospital_privacy"]
    assert central["epsilon"] == pytest.approx(20, abs=1e-4)
    assert central["claim"].startswith("Hospital-level differential privacy of the models of this run with ε = 20")
    assert central["claim"] in page
    assert [charge[0] for charge in charges(out / "privacy" / LEDGER)] == [1, 2]
    assert not any((out / "sites").glob("*/secure/*/session.json"))


@pytest.mark.slow
def test_hospital_level_privacy_is_the_same_bits_on_ray_and_near_them_under_masks(
    small_config: str, tmp_path: Path
) -> None:
    chosen = [
        *TINY, f"privacy={{mode: hospital, insecure_noise_seed: 7, secure: {{target_range: {2**24}}}, {CENTRAL}}}",
        "hospitals.west.policy={methods: {sdmad: [context]}}", "federation.rounds=1",
    ]  # fmt: skip
    here = finished(small_config, tmp_path / "here", *chosen)
    ray = finished(small_config, tmp_path / "ray", *chosen, "engine=ray")
    assert checkpoint_bytes(here.path) == checkpoint_bytes(ray.path)
    assert here.summary()["hospital_privacy"] == ray.summary()["hospital_privacy"]
    masked = finished(small_config, tmp_path / "masked", *chosen, "privacy.secure_aggregation=on")
    assert {site["guarantee"] for site in masked.summary()["sites"].values()} == {SUMS_TO_THE_SERVER}
    wanted, found = (checkpoint(run).tensors["sdmad"] for run in (here, masked))
    for name, value in wanted.items():
        # half a step of quantisation at the clip norm, the millionth by which clipping shortens, float32 on both sides
        bound = 0.5 / 2**24 * (1 + len(value.flatten()) ** 0.5) + 1e-6 + 4e-7 * float(value.abs().max())
        assert float((found[name] - value).abs().max()) <= bound, name


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.slow
def test_four_hospitals_with_four_policies_are_each_stated_correctly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["data.test_normal=4", "data.test_abnormal=4", "data.pool=4"]
    run = simulate(load_config(CONFIG, small), tmp_path, PlainProgress())
    summary, page = run.summary(), read(run.path).text
    sites = summary["sites"]
    assert [sites[name]["rounds"] for name in ("riverside", "st-anna", "hillcrest", "lakeside")] == [4, 4, 4, 2]
    assert (sites["riverside"]["epsilon"], sites["riverside"]["guarantee"]) == (None, TO_THE_SERVER)
    for name, unit, budget in (("st-anna", "image", 8), ("hillcrest", "patient", 2)):
        told = sites[name]
        assert (told["unit"], told["delta"]) == (unit, 1e-5)
        assert told["epsilon"] == pytest.approx(budget, abs=1e-4)
        assert told["guarantee"].startswith(f"{unit.capitalize()}-level differential privacy of this site's training")
        for words in (f"spent of {budget} and δ = 1e-05", "on full batches (no amplification", "not covered are"):
            assert words in told["guarantee"]
    assert "under removal of all images of one patient" in sites["hillcrest"]["guarantee"]
    assert 3.7 < sites["lakeside"]["epsilon"] <= 4
    assert sites["lakeside"]["faults"] == {"budget_spent": 1}
    assert sites["lakeside"]["guarantee"].endswith("round 3 and is spent: from then on nothing left it.")
    central = summary["hospital_privacy"]
    assert central["epsilon"] == pytest.approx(12, abs=1e-4)
    assert (central["delta"], central["budget"], central["cohort"]) == (1e-3, 12, 4)
    assert guarantees(list(sites), run.events()) == {name: told["guarantee"] for name, told in sites.items()}
    for said in (*(told["guarantee"] for told in sites.values()), central["claim"]):
        assert said in page
    assert "stand side by side: their ε are never added" in page
    assert "δ = 0.001, per hospital" in page
    assert "20.00" not in page, "nobody adds 8 and 12"
    print_result(Console(width=10_000), run)
    assert central["claim"] in capsys.readouterr().out
    code, out, _ = called(monkeypatch, capsys, "privacy", "explain", str(run.path))
    said = [f"{name}: {told['guarantee']}" for name, told in sites.items()]
    assert (code, out.splitlines()) == (0, [*said, f"hospital level: {central['claim']}", SIDE_BY_SIDE])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code, out, _ = called(monkeypatch, capsys, "privacy", "audit", str(tmp_path), "--checks", "noise,removal")
    assert code == 0
    for bound in ("st-anna: context, image-level ε = 8", "hillcrest: context, patient-level ε = 2", "lakeside: cont"):
        assert f"sdmad at {bound}" in out
    assert "riverside" not in out, "nothing was claimed there"
    assert out.count(HOLDS) == 6
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
