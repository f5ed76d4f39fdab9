"""The whole pipeline, a few steps long."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fed_fsad.assets import SUMS, asset, read_sums
from fed_fsad.errors import CheckpointError
from fed_fsad.methods.d24fad import Settings, build
from fed_fsad.methods.d24fad.resnet import SmallResNet
from pretraining import build_clip, build_student, build_teacher, targets
from pretraining.build_clip import make_clip
from pretraining.build_student import make_student
from pretraining.build_teacher import make_distilled, make_teacher
from pretraining.card import Card, publish, read_card
from pretraining.clip import ClipTraining
from pretraining.distil import Distillation
from pretraining.figures import OTHERS, Measures, deviations
from pretraining.presets import Amount, Run
from pretraining.training import Plan
from tests.pretraining.test_targets import reference

CURVE = [{"step": 2.0, "cpu_seconds": 1.0, "loss": 0.5}]


def _card(figure: float) -> Card:
    plan = Plan("x", 0, 2, 0.1, 0.0, 1)
    return Card("Title", "Text.", "command", plan, 7, (1, 2), {"Heading": {"row": {"column": figure}}}, CURVE)


def _run(folder: Path, resume: bool = False, batch: int = 2) -> Run:
    return Run(0, Amount(4, 3, batch), folder, folder, resume)


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_teacher, "WATCHED", 2)
    monkeypatch.setattr(build_teacher, "OTHERS", ("oct",))
    monkeypatch.setattr(build_clip, "TOKENIZER_CAPTIONS", 100)


@pytest.fixture
def state_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "CHUNK", 4)
    for module, name in ((build_teacher, "distillation_plan"), (build_clip, "clip_plan")):
        plan = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, plan=plan: replace(plan(*a), save_every=1))


def test_three_steps_of_the_teacher_twice_give_the_same_file(tmp_path: Path) -> None:
    digests = [make_teacher(_run(tmp_path / run, batch=8), Measures(2, (1,), None, None)) for run in ("one", "two")]
    assert digests[0] == digests[1]
    assert (tmp_path / "one/teacher/weights.safetensors").stat().st_size < 2_000_000
    network = SmallResNet()
    network.load_state_dict(load_file(tmp_path / "one/teacher/weights.safetensors"))
    card = read_card(tmp_path / "one/teacher/card.md")
    assert card["sha256"] == digests[0] == read_sums(tmp_path / "one" / SUMS)["teacher/weights.safetensors"]
    assert card["plan"]["steps"] == 3
    assert set(card["figures"]["Reported phantom organ, never looked at"]) == {"brain_mri"}
    assert "brain_mri" not in card["figures"]["Phantom organs that choices looked at"]


@pytest.mark.slow
@pytest.mark.usefixtures("state_every_step")
def test_three_steps_of_distillation_broken_off_and_resumed_give_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def distilled(run: Run, begin: Path | None = None) -> str:
        return make_distilled(
            run, reference(), "--reference X --variant v1", begin, Measures(2, (1, 2), None, reference())
        )

    whole = distilled(_run(tmp_path / "one"))
    with monkeypatch.context() as patch:
        patch.setattr(Distillation, "loss", _breaks_at(2, Distillation.loss))
        with pytest.raises(KeyboardInterrupt):
            distilled(_run(tmp_path / "two"))
    with pytest.raises(CheckpointError, match="add --resume to go on"):
        distilled(_run(tmp_path / "two"))
    assert distilled(_run(tmp_path / "two", resume=True)) == whole

    card = read_card(tmp_path / "one/teacher/card.md")
    assert card["sha256"] == whole == read_sums(tmp_path / "one" / SUMS)["teacher/weights.safetensors"]
    assert card["command"] == "python -m pretraining distil --seed 0 --images 4 --steps 3 --reference X --variant v1"
    chosen, reported = card["figures"].values()
    assert set(chosen) == {*OTHERS, "mean"}
    assert {"patch", "untrained patch", "raw pixels", "ResNet-50 patch"} <= set(reported["brain_mri"])

    assert distilled(_run(tmp_path / "three"), tmp_path / "one/teacher/weights.safetensors") != whole
    begun = read_card(tmp_path / "three/teacher/card.md")["plan"]["begun"]
    assert begun == whole, "the card says which weights it went on from"


def _breaks_at(step: int, loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def breaking(self: nn.Module, at: int) -> Tensor:
        if at == step:
            raise KeyboardInterrupt
        return loss(self, at)

    return breaking


@pytest.mark.slow
@pytest.mark.usefixtures("state_every_step")
def test_three_steps_of_clip_broken_off_and_resumed_give_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, resume: bool = False) -> Run:
        return Run(0, Amount(40, 3, 96), tmp_path / name, tmp_path / name, resume)

    whole = make_clip(run("one"), 1, None)
    with monkeypatch.context() as patch:
        patch.setattr(ClipTraining, "loss", _breaks_at(2, ClipTraining.loss))
        with pytest.raises(KeyboardInterrupt):
            make_clip(run("two"), 1, None)
    assert make_clip(run("two", resume=True), 1, None) == whole
    for file in ("bpe.txt.gz", "model.json"):
        assert (tmp_path / "one/clip" / file).read_bytes() == (tmp_path / "two/clip" / file).read_bytes()
    card = read_card(tmp_path / "one/clip/card.md")
    assert set(card["figures"]) == {"Seen kinds, zero-shot", "Held-out kinds, zero-shot"}

    on = make_clip(run("three"), 1, tmp_path / "one/clip")
    assert on != whole
    plan = read_card(tmp_path / "three/clip/card.md")["plan"]
    assert plan["begun"] == whole, "the card says which weights it went on from"


def test_publishing_keeps_the_other_sums_and_stores_half_precision(tmp_path: Path) -> None:
    weights = {"b": torch.tensor([1.0, 2.0]), "count": torch.tensor(3)}
    first = publish(tmp_path, "first", weights, _card(0.5))
    second = publish(tmp_path, "second", {"a": torch.ones(2)}, _card(0.5))
    assert read_sums(tmp_path / SUMS) == {"first/weights.safetensors": first, "second/weights.safetensors": second}
    stored = load_file(tmp_path / "first/weights.safetensors")
    assert stored["b"].dtype == torch.float16
    assert stored["count"].dtype == torch.int64
    assert not list(tmp_path.rglob("*.partial"))


def test_a_card_reads_back_what_it_states(tmp_path: Path) -> None:
    digest = publish(tmp_path, "x", {"a": torch.ones(2)}, _card(0.12345))
    head = read_card(tmp_path / "x/card.md")
    assert head["sha256"] == digest
    assert head["images"] == 7
    assert head["seeds"] == [1, 2]
    assert head["figures"] == {"Heading": {"row": {"column": 0.123}}}
    assert "| row | 0.123 |" in (tmp_path / "x/card.md").read_text()


@pytest.mark.parametrize(
    ("stated", "found", "off"),
    [(0.8, 0.803, 0), (0.8, 0.81, 1), (0.8, 0.79, 1), (0.8, float("nan"), 1)],
)
def test_deviations_are_figures_beyond_the_tolerance(stated: float, found: float, off: int) -> None:
    cards = {"x": {"figures": {"Heading": {"row": {"column": stated}}}}}
    result = deviations(cards, {"x": {"Heading": {"row": {"column": found}}}}, 0.005)
    assert len(result) == off
    assert set(result) <= {"x > Heading > row > column"}


def test_what_a_card_does_not_state_is_not_off() -> None:
    cards = {"x": {"figures": {"Heading": {"row": {"column": 0.5}}}}}
    found = {
        "x": {"Heading": {"row": {"column": 0.5, "other": 0.9}, "more": {"column": 0.1}}, "Real": {"row": {"a": 1.0}}}
    }
    assert not deviations(cards, found, 0.005)


def test_the_student_is_made_twice_the_same_names_its_teacher_and_starts_a_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build_student, "OTHERS", ("oct",))
    monkeypatch.setattr(build_student, "POOL", 4)
    digests = [make_student(_run(tmp_path / run, batch=16), 2, (1,)) for run in ("one", "two")]
    assert digests[0] == digests[1]
    card = read_card(tmp_path / "one/student/card.md")
    assert card["sha256"] == digests[0] == read_sums(tmp_path / "one" / SUMS)["student/weights.safetensors"]
    assert card["plan"]["begun"] == read_sums(asset(SUMS))["teacher/weights.safetensors"]
    path = tmp_path / "one/student/weights.safetensors"
    stored = load_file(path)
    begun = build(Settings(student="light", student_weights=str(path)), 5)
    kernel = begun._student.get_parameter("stages.0.0.body.0.parametrizations.weight.original")
    assert torch.equal(kernel, stored["student.stages.0.0.body.0.weight"].float())
