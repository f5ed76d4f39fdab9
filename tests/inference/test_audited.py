"""Who is bound to what in a run, which images an audit attacks, and the attacks that are made for one method."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fed_fsad.config import parse_config
from fed_fsad.errors import CheckpointError, ConfigError
from fed_fsad.inference.audited import LEAST, subjects_of
from fed_fsad.privacy.audit import guessing, matching
from fed_fsad.privacy.audit.checks import audit
from fed_fsad.privacy.audit.finding import HOLDS, REFUTED, UNCLAIMED, Finding
from fed_fsad.privacy.audit.mechanism import ScaledNoise
from fed_fsad.privacy.audit.subject import Subject
from fed_fsad.privacy.noise import InsecureSeededNoise, Noise
from fed_fsad.privacy.policy import Policy
from fed_fsad.rundir import RunDir

HEAD = """
name: audited
data: {kind: phantoms, pool: 4}
evaluation: {shots: [2]}
"""
SDMAD = "methods: {sdmad: {model: random, local_steps: 1}}\n"
HOLDS_OCT = "holds: {organs: [oct], normal: 24, abnormal: 24, style: %d}"
ADAPTERS = "methods: {sdmad: [image_adapters]}"


def hospital(name: str, policy: str = "{}", style: int = 0) -> str:
    return f"  - {{name: {name}, {HOLDS_OCT % style}, policy: {policy}}}\n"


def run_of(folder: Path, text: str, events: Sequence[Mapping[str, Any]] = ()) -> Path:
    run = RunDir.create(folder, parse_config(HEAD + text, "audited.yaml"))
    for event in events:
        run.log(event)
    return folder


def verdicts(subject: Subject, *names: str) -> dict[str, Finding]:
    return {finding.check: finding for finding in audit([subject], names, lambda what, done, of: None)}


def weaker(factor: float) -> Any:
    def make(seed: int) -> Noise:
        return ScaledNoise(InsecureSeededNoise(seed), factor)

    return make


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of hospitals with equal, other and no policies; nobody writes into it."""
    same = f"{{privacy: example, epsilon: 2, {ADAPTERS}}}"
    other = "{privacy: example, epsilon: 8, methods: {sdmad: [context]}}"
    sites = hospital("north", same) + hospital("south", same, 1) + hospital("west", other, 2) + hospital("east")
    return run_of(tmp_path_factory.mktemp("audited") / "several", f"hospitals:\n{sites}{SDMAD}")


def test_sites_of_equal_terms_are_one_subject(several: Path) -> None:
    first, second = subjects_of(several, 0)
    assert (first.sites, first.parts) == (("north", "south"), ("image_adapters",))
    assert (second.sites, second.parts) == (("west",), ("context",))
    assert [subject.epsilon for subject in (first, second)] == [pytest.approx(2), pytest.approx(8)]
    assert first.ground is second.ground, "what both ask for is computed once"
    assert first.releases == 8, "one step in each of the default rounds"


def test_the_pool_is_of_one_task_of_the_run_and_of_nobody(several: Path) -> None:
    pool = subjects_of(several, 0)[0].ground.pool
    assert len(pool) >= LEAST
    assert {sample.task for sample in pool.samples} == {"oct"}
    assert {sample.patient for sample in pool.samples} == {None}
    assert len({sample.id for sample in pool.samples}) == len(pool)
    assert {sample.is_normal for sample in pool.samples[:2]} == {True, False}


def test_what_the_server_asks_binds_everybody(tmp_path: Path) -> None:
    asked = "privacy: {mode: example, example: {epsilon: 4}}\n"
    run = run_of(tmp_path / "run", f"{asked}hospitals:\n{hospital('north')}{hospital('south', style=1)}{SDMAD}")
    (subject,) = subjects_of(run, 0)
    assert subject.sites == ("north", "south")
    assert subject.epsilon == pytest.approx(4)
    assert subject.parts == ("context", "text_adapters", "image_adapters")


def test_a_real_run_is_audited_by_what_its_sites_said(tmp_path: Path) -> None:
    said = {"kind": "site", "site": "real", "status": "ok", "epsilon": 3.0, "delta": 1e-6, "unit": "patient"}
    signs = "methods: {sdmad: {model: random, signs: [brain_mri]}}\n"
    run = run_of(tmp_path / "run", f"hospitals: [{{name: real}}]\n{signs}", [said])
    (subject,) = subjects_of(run, 0)
    assert subject.terms is not None
    assert (subject.terms.unit, subject.delta) == ("patient", 1e-6)
    assert subject.epsilon == pytest.approx(3)
    assert {sample.task for sample in subject.ground.pool.samples} == {"brain_mri"}, "phantoms under the method's signs"
    assert any(sample.categories for sample in subject.ground.pool.samples)


def test_a_run_without_privacy_is_one_subject_without_terms(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", f"hospitals:\n{hospital('north')}{SDMAD}")
    (subject,) = subjects_of(run, 0)
    assert subject.terms is None
    assert verdicts(subject, "span")["span"].verdict == UNCLAIMED


def test_no_run_and_no_such_method_are_one_sentence(several: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run; give a run directory"):
        subjects_of(tmp_path, 0)
    with pytest.raises(ConfigError, match="has trained no 'sdmda'; did you mean 'sdmad'"):
        subjects_of(several, 0, "sdmda")


def test_an_audit_writes_nothing_into_the_run(several: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in several.rglob("*")}
    verdicts(subjects_of(several, 0)[0], "noise")
    assert {path: path.stat().st_mtime_ns for path in several.rglob("*")} == before


def test_the_span_test_finds_members_without_noise_and_none_with_it(several: Path) -> None:
    private, context = subjects_of(several, 0)
    found = verdicts(private, "span")["span"]
    assert found.verdict == HOLDS
    assert (found.figures["control"] or 0) > 0.85
    assert 0.3 < (found.figures["found"] or 0) < 0.7
    bare = verdicts(replace(private, make_noise=weaker(0.0)), "span")["span"]
    assert bare.verdict == REFUTED, "clipping alone does not help"
    assert verdicts(context, "span")["span"].found == "nothing: no image adapter leaves"


@pytest.mark.slow
def test_matching_rebuilds_what_is_bare_and_nothing_that_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "STEPS", 10)
    terms = "{privacy: example, epsilon: 2}"
    sites = f"  - {{name: north, holds: {{organs: [oct], normal: 60, abnormal: 0}}, policy: {terms}}}\n"
    text = f"hospitals:\n{sites}methods: {{d24fad: {{image_size: 64}}}}\n"
    (subject,) = subjects_of(run_of(tmp_path / "run", text), 0)
    found = verdicts(subject, "matching")["matching"]
    assert found.verdict == HOLDS
    assert (found.figures["control"] or 0) > 0.4
    assert (found.figures["found"] or 0) < 0.15
    assert found.figures["found_rate"] == 0
    bare = replace(subject, make_noise=weaker(0.0))
    assert verdicts(bare, "matching")["matching"].verdict == REFUTED


@pytest.mark.slow
def test_every_check_of_a_real_method_holds_and_is_refuted_without_noise(
    several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guessing, "CANARIES", 200)
    context = subjects_of(several, 0)[1]
    found = verdicts(context)
    assert {name: row.verdict for name, row in found.items()} == dict.fromkeys(found, HOLDS)
    bare = replace(context, terms=Policy(privacy="example", epsilon=1), make_noise=weaker(0.0))
    found = verdicts(bare, "canaries", "lira")
    assert {name: row.verdict for name, row in found.items()} == dict.fromkeys(found, REFUTED)
