"""Hospital-level privacy on the real rounds: what one hospital can move, what is charged, and what a kill costs."""

import json
import math
import multiprocessing
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fed_fsad import __version__
from fed_fsad.config import Config, parse_config, resolved_yaml
from fed_fsad.errors import ConfigError
from fed_fsad.messages import Reply
from fed_fsad.privacy.account import read_account
from fed_fsad.privacy.accounting import gaussian_epsilon, noise_for
from fed_fsad.privacy.guarantees import TO_THE_SERVER
from fed_fsad.privacy.noise import InsecureSeededNoise
from fed_fsad.privacy.release import release
from fed_fsad.rundir import RunDir
from fed_fsad.seeds import derive
from fed_fsad.summary import summarise
from server import hospital_dp
from server import rounds as rounds_module
from server.aggregate import Aggregator
from server.checkpoint import load_checkpoint, save_checkpoint
from server.hospital_dp import HospitalPrivacy
from tests.server.fakes import Behaviour, FakeScorer, altered, config_of, coordinator, cut_off, honest, lines

TERMS = "{epsilon: 8, clip_norm: 0.5}"
NAMES = ["a", "b", "c"]


def private(terms: str = TERMS, seed: int | None = 5, names: list[str] | None = None, **federation: Any) -> Config:
    plain = config_of(names or NAMES, **federation)
    overrides = ["privacy.mode=hospital", f"privacy.hospital={terms}"]
    overrides += [] if seed is None else [f"privacy.insecure_noise_seed={seed}"]
    return parse_config(resolved_yaml(plain), "fake.yaml", overrides)


def final(folder: Path, run: RunDir) -> dict[str, Tensor]:
    found = load_checkpoint(folder / "checkpoints", run.run_id, FakeScorer().initial())
    assert found is not None
    return dict(found.tensors["d24fad"])


def length(tensors: Mapping[str, Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors.values()))


def replies(steps: Mapping[str, float], parts: Mapping[str, str] | None = None) -> list[Reply]:
    """Sites that add their step to everything, or only to the tensors whose names begin as `parts` says."""
    start = FakeScorer().initial()["d24fad"]
    of = parts or {}
    sent = {site: [name for name in start if name.startswith(of.get(site, ""))] for site in steps}
    return [
        Reply(site, __version__, tensors={"d24fad": {name: start[name] + step for name in sent[site]}})
        for site, step in steps.items()
    ]


def hidden(folder: Path, config: Config, given: list[Reply]) -> dict[str, Tensor]:
    """The model after one round, through the mechanism and the strategy of a new run."""
    run = RunDir.create(folder, config)
    assert config.privacy.central is not None
    current = FakeScorer().initial()
    reply, _ = HospitalPrivacy(config, config.privacy.central, run).hide(1, current, given)
    return Aggregator(config.federation).combine(1, "d24fad", current["d24fad"], [reply])


def test_a_round_is_the_formula_of_a_slow_loop(tmp_path: Path) -> None:
    config = private(rounds=1)
    behaviours = {"a": honest("a", 0.01), "b": honest("b", 2.0), "c": honest("c", -7.0)}
    federation, run, _ = coordinator(tmp_path, behaviours, config)
    federation.train()
    noise = InsecureSeededNoise(derive(5, "noise", "hospital level", 1))
    sigma = noise_for(8, 1e-5, 1)
    count = 8  # scalars: 3 + 4 + 1
    moved = sum(step * min(1, 0.5 / (abs(step) * math.sqrt(count))) for step in (0.01, 2.0, -7.0))
    for name, tensor in FakeScorer().initial()["d24fad"].items():
        expected = (moved + sigma * 0.5 * noise.normal(tensor.shape)) / 3
        torch.testing.assert_close(final(tmp_path, run)[name], expected.float(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("parts", [{}, {"b": "kernels"}, {"a": "affine", "b": "affine", "c": "kernels"}])
@pytest.mark.parametrize("gone", NAMES)
def test_removing_a_hospital_moves_the_model_by_at_most_its_share_of_c(
    tmp_path: Path, gone: str, parts: dict[str, str]
) -> None:
    """Same noise, one hospital less, whatever parts it sent: the fixed divisor keeps the others where they are."""
    steps, config = {"a": 0.01, "b": 50.0, "c": -3.0}, private()
    left = {site: step for site, step in steps.items() if site != gone}
    whole = hidden(tmp_path / "whole", config, replies(steps, parts))
    less = hidden(tmp_path / "less", config, replies(left, parts))
    moved = length({name: whole[name] - less[name] for name in whole})
    assert 0 < moved <= 0.5 / 3 * (1 + 1e-5)
    if steps[gone] != 0.01:
        assert moved > 0.999 * 0.5 / 3, "a long update uses its whole share: the bound is tight"


def test_the_mean_over_those_who_came_would_fail_that_test(tmp_path: Path) -> None:
    """Control: dividing by the senders moves everything when one of them is gone."""
    steps = {"a": 0.17, "b": -0.17, "c": 0.17}
    plain = Aggregator(private().federation)
    start = FakeScorer().initial()["d24fad"]
    whole = plain.combine(1, "d24fad", start, replies(steps))
    less = plain.combine(1, "d24fad", start, replies({site: steps[site] for site in "ac"}))
    assert length({name: whole[name] - less[name] for name in whole}) > 0.5 / 3


def test_a_sum_that_lacks_a_part_gets_noise_on_it_all_the_same(tmp_path: Path) -> None:
    """As secure aggregation gives it: the sum alone, of clipped updates, without what nobody trained."""
    config = private()
    assert config.privacy.central is not None
    current = FakeScorer().initial()
    whole, norms = hospital_dp.clipped_sum(
        current, replies({"a": 0.01, "b": 50.0}, {"a": "affine", "b": "affine"}), 0.5
    )
    bare = {name: total for name, total in whole.items() if "affine" in name}
    ends = []
    for folder, total in (("bare", bare), ("whole", whole)):
        mechanism = HospitalPrivacy(config, config.privacy.central, RunDir.create(tmp_path / folder, config))
        ends.append(mechanism.hide_sum(1, current, total, norms)[0].tensors["d24fad"])
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[1])
    assert float(ends[0]["kernels/c"]) != 0


def test_unequal_counts_of_images_change_nothing(tmp_path: Path) -> None:
    ends = []
    for counts in ((1, 1, 1), (1, 1, 98)):
        behaviours = {s: honest(s, 0.1, examples=n) for s, n in zip(NAMES, counts, strict=True)}
        federation, run, _ = coordinator(tmp_path / str(counts[-1]), behaviours, private(rounds=2))
        federation.train()
        ends.append(final(run.path, run))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_long_update_is_clipped_and_decides_about_nobody_else(tmp_path: Path) -> None:
    def spoil(value: float) -> Behaviour:
        return altered("c", lambda tensors: tensors.update({"affine/a": torch.full((3,), value)}))

    behaviours = {"a": honest("a", 0.1), "b": honest("b", 0.1), "c": spoil(1e6)}
    federation, run, _ = coordinator(tmp_path / "long", behaviours, private(rounds=1))
    federation.train()
    assert {line["status"] for line in lines(run, "site")} == {"ok"}, "no cohort's median decides here"
    nan = {**behaviours, "c": spoil(float("nan"))}
    federation, run, _ = coordinator(tmp_path / "nan", nan, private(rounds=1))
    federation.train()
    assert [line["status"] for line in lines(run, "site")] == ["ok", "ok", "rejected"]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in final(run.path, run).values())


def test_at_the_end_of_its_budget_the_run_keeps_its_result(tmp_path: Path) -> None:
    sigma = noise_for(8, 1e-5, 2)
    config = private(f"{{epsilon: 8, noise_multiplier: {sigma}}}", seed=None, rounds=6)
    behaviours = {name: honest(name, 0.1) for name in NAMES}
    federation, run, scorer = coordinator(tmp_path, behaviours, config)
    federation.train()
    assert scorer.rounds[-1] == (2, True)
    told = lines(run, "hospital_privacy")
    assert [line["round"] for line in told] == [1, 2]
    assert told[-1]["epsilon"] == pytest.approx(8, abs=1e-6)
    assert told[0]["epsilon"] == pytest.approx(gaussian_epsilon(1 / sigma, 1e-5))
    assert any(
        "budget of ε = 8 is spent: the run ends with the model of round 2" in x["text"] for x in lines(run, "warning")
    )
    kept = final(tmp_path, run)
    again, _, scorer = coordinator(tmp_path, behaviours, config)
    again.train()
    assert [entry[0] for entry in scorer.rounds] == [2], "resumed, it trains no further"
    assert all(torch.equal(kept[name], tensor) for name, tensor in final(tmp_path, run).items())
    summary = summarise(run, "completed")
    assert (summary["status"], summary["rounds"], summary["hospital_privacy"]["round"]) == ("completed", 2, 2)
    assert {site["guarantee"] for site in summary["sites"].values()} == {TO_THE_SERVER}
    account = read_account(tmp_path / "privacy")
    assert (account.unit, account.runs[0].releases) == ("hospital", 2)


def _one_life(folder: Path, config: Config, dies_at: str) -> None:
    """Train in a process of its own that is killed in round 2, before or after its charge, or before its checkpoint."""
    torch.set_num_threads(1)
    real = release

    def dying(ledger: Any, outbox: Any, request: Any, **more: Any) -> Any:
        if request.round == 2 and dies_at == "before the charge":
            ledger.charge = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)
        released = real(ledger, outbox, request, **more)
        if request.round == 2 and dies_at == "after the charge":
            os.kill(os.getpid(), signal.SIGKILL)
        return released

    def unsaved(where: Path, checkpoint: Any) -> Path:
        if checkpoint.round == 2 and dies_at == "before the checkpoint":
            os.kill(os.getpid(), signal.SIGKILL)
        return save(where, checkpoint)

    save = save_checkpoint
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hospital_dp, "release", dying)
        patch.setattr(rounds_module, "save_checkpoint", unsaved)
        coordinator(folder, {name: honest(name, 0.1) for name in NAMES}, config)[0].train()


@pytest.mark.parametrize("second", ["after the charge", "before the checkpoint"])
@pytest.mark.parametrize("first", ["before the charge", "after the charge"])
def test_killed_twice_every_release_is_charged_and_none_is_drawn_twice(tmp_path: Path, first: str, second: str) -> None:
    config = private(seed=None, rounds=3)
    drawn = []
    for point in (first, second):
        process = multiprocessing.get_context("fork").Process(target=_one_life, args=(tmp_path, config, point))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        drawn.append([path.read_bytes() for path in (tmp_path / "privacy" / "outbox").iterdir()])
    assert drawn[0] == drawn[1], "the noise of round 2 was drawn once"
    federation, run, _ = coordinator(tmp_path, {name: honest(name, 0.1) for name in NAMES}, config)
    federation.train()
    charges = [json.loads(line) for line in (tmp_path / "privacy" / "ledger.jsonl").read_text().splitlines()[1:]]
    assert [charge["request"]["round"] for charge in charges] == [1, 2, 3]
    assert lines(run, "hospital_privacy")[-1]["epsilon"] == pytest.approx(8, abs=1e-6)


@pytest.mark.parametrize("strategy", ["fedavg", "fedadam", "fedavgm"])
def test_adaptive_clipping_resumes_to_the_bits_of_an_unbroken_run(tmp_path: Path, strategy: str) -> None:
    chosen: dict[str, Any] = {"strategy.name": strategy}
    config = private("{epsilon: 50, clipping: adaptive}", rounds=4, min_replies=3, **chosen)
    stop = {"round": 3}

    behaviours = {"a": honest("a", 0.1), "b": honest("b", 0.2), "c": cut_off(honest("c", 0.4), stop)}
    with pytest.raises(Exception, match="round 3 got 2 valid replies"):
        coordinator(tmp_path / "broken", behaviours, config)[0].train()
    stop["round"] = 99
    ends = []
    for folder in (tmp_path / "broken", tmp_path / "whole"):
        federation, run, _ = coordinator(folder, behaviours, config)
        federation.train()
        clips = [line["clip_norm"] for line in lines(run, "hospital_privacy")]
        assert len(set(clips)) == 4, "C moved in every round"
        ends.append((final(folder, run), clips))
    assert ends[0][1] == ends[1][1]
    assert all(torch.equal(ends[0][0][name], ends[1][0][name]) for name in ends[0][0])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("federation.strategy.name=fedmedian", "bounds what one hospital adds to a mean, and fedmedian takes none"),
        ("federation.strategy.name=krum", "set federation.strategy.name to one of fedavg"),
        ("federation.weighting=size", "set federation.weighting: equal"),
        ("privacy.hospital.delta=0.5", "not below 1 / 3 hospitals and would protect none; set it to 0.03 or less"),
        ("privacy.hospital={delta: 1e-6}", "mode hospital needs a budget; state hospital.epsilon"),
        ("privacy={mode: both, hospital: {epsilon: 1}}", "mode both needs a budget; state example.epsilon"),
        ("privacy=example", "mode example needs a budget"),
        ("privacy.hospital.epsilon=0", "privacy.hospital.epsilon: input should be greater than 0"),
        ("privacy.hospital.clipping=adaptve", "input should be 'fixed' or 'adaptive', but it is 'adaptve'"),
        ("privacy.hospital.noise_multiplier=0.3", "noise_multiplier 0.3 is too little for one round at epsilon 8"),
        ("privacy.hospital.clip=1", "unknown key 'privacy.hospital.clip'; did you mean"),
    ],
)
def test_impossible_terms_are_one_sentence(override: str, words: str) -> None:
    text = resolved_yaml(private())
    with pytest.raises(ConfigError) as error:
        parse_config(text, "fake.yaml", [override])
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_off_is_off_in_either_spelling() -> None:
    text = resolved_yaml(config_of(NAMES))
    for override in ("privacy=off", "privacy.mode=off"):
        assert parse_config(text, "fake.yaml", [override]).privacy.mode == "off"


def test_a_cohort_too_small_for_the_noise_is_said_at_the_start(tmp_path: Path) -> None:
    config = private("{epsilon: 0.1}", rounds=1)
    federation, run, _ = coordinator(tmp_path, {name: honest(name) for name in NAMES}, config)
    federation.train()
    assert "hospital-level noise is" in lines(run, "warning")[0]["text"]
