"""One round at one hospital: the policy decides what is trained and what leaves; private text never does."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message, MessageType, RecordDict
from PIL import Image

from clients.app import build_app
from fed_fsad import __version__
from fed_fsad.config import Config, parse_config
from fed_fsad.messages import Instruction, Reply
from fed_fsad.methods.method import part_of
from fed_fsad.residents import resident
from fed_fsad.rundir import RunDir
from simulations.grid import InProcessGrid

TEXT = """
name: tiny
data: {kind: phantoms}
hospitals:
  - {name: north, holds: {organs: [oct], normal: 9, abnormal: 2}}
methods:
  d24fad: {teacher: {name: random}, image_size: 64, local_steps: 2, batch: 4}
federation: {rounds: 3}
"""
DP = (
    "hospitals.north.policy={privacy: example, epsilon: 8, largest_rho: 20, methods: {d24fad: [affine]}}",
)  # fmt: skip


def opened(folder: Path, *overrides: str, text: str = TEXT) -> tuple[Context, Config]:
    config = parse_config(text, "tiny.yaml", overrides)
    run = RunDir.create(folder, config)
    InProcessGrid(build_app(lambda event: None), [], {})
    return Context(1, 2, {"partition-id": 0}, RecordDict(), {"out": str(run.path)}), config


def instruction(config: Config, round_: int = 1, **changes: Any) -> Instruction:
    tensors = {
        name: {key: value.detach().clone() for key, value in resident(name, block, 0).trainable().items()}
        for name, block in config.training.items()
    }
    settings = {"run": "run", "rounds": 3, "seed": 0, "threads": 1, "cohort": 4, "insecure_noise_seed": 7}
    return Instruction(round=round_, settings=config.training, tensors=tensors, **{**settings, **changes})


def ask(context: Context, sent: Instruction) -> Reply:
    message = Message(sent.pack(), dst_node_id=2, message_type=MessageType.TRAIN)
    return Reply.unpack(build_app(lambda event: None)(message, context).content)


def same(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    return list(one) == list(two) and all(torch.equal(one[name], two[name]) for name in one)


def test_a_site_trains_and_reports_loss_and_count(tmp_path: Path) -> None:
    context, config = opened(tmp_path)
    sent = instruction(config)
    reply = ask(context, sent)
    assert (reply.status, reply.site, reply.version, reply.examples) == ("ok", "north", __version__, {"d24fad": 9})
    assert reply.metrics["d24fad"]["loss"] > 0
    assert reply.seconds > 0
    assert reply.epsilon is None
    moved = [
        name for name, value in reply.tensors["d24fad"].items() if not torch.equal(value, sent.tensors["d24fad"][name])
    ]
    assert {part_of(name) for name in moved} == {"affine", "kernels", "weighting"}


def test_the_same_instruction_gives_the_same_bits_and_another_round_others(tmp_path: Path) -> None:
    context, config = opened(tmp_path)
    sent = instruction(config)
    first, again = ask(context, sent), ask(context, sent)
    other = ask(context, Instruction(**{**sent.__dict__, "round": 2}))
    assert same(first.tensors["d24fad"], again.tensors["d24fad"])
    assert not same(first.tensors["d24fad"], other.tensors["d24fad"])


def test_under_dp_only_the_allowed_part_leaves_and_neither_loss_nor_count(tmp_path: Path) -> None:
    context, config = opened(tmp_path, *DP)
    reply = ask(context, instruction(config))
    assert {part_of(name) for name in reply.tensors["d24fad"]} == {"affine"}
    assert (reply.metrics["d24fad"], reply.examples) == ({}, {})
    assert reply.seconds == 0, "they would tell how many records a sampled batch has drawn"
    assert reply.epsilon is not None
    assert 0 < reply.epsilon < 8
    assert (reply.unit, reply.delta) == ("image", 1e-5)


def test_a_method_with_too_few_records_for_its_noise_does_not_cost_the_others_their_part(tmp_path: Path) -> None:
    policy = "hospitals.north.policy={privacy: example, epsilon: 8, methods: {sdmad: [context], d24fad: [affine]}}"
    context, config = opened(tmp_path, "methods.sdmad={model: random}", "hospitals.north.holds.abnormal=16", policy)
    reply = ask(context, instruction(config))
    assert (reply.status, set(reply.tensors)) == ("ok", {"sdmad"}), "9 normals are 3 records: too few for D²4FAD"
    ledger = (tmp_path / "sites" / "north" / "ledger.jsonl").read_text().splitlines()
    charges = [json.loads(line) for line in ledger if json.loads(line)["kind"] == "charge"]
    assert [charge["request"]["method"] for charge in charges] == ["sdmad"], "what is refused costs nothing"


def test_dp_cannot_be_forgotten_the_server_has_no_word_in_it(tmp_path: Path) -> None:
    context, config = opened(tmp_path, *DP)
    ask(context, instruction(config))
    ledger = (tmp_path / "sites" / "north" / "ledger.jsonl").read_text().splitlines()
    charges = [json.loads(line) for line in ledger if json.loads(line)["kind"] == "charge"]
    assert [charge["request"]["method"] for charge in charges] == ["d24fad"]
    assert charges[0]["secure"] is False, "this test seeds the noise, and the ledger says so"


def test_a_round_asked_for_twice_is_answered_with_the_same_bytes_and_paid_once(tmp_path: Path) -> None:
    context, config = opened(tmp_path, *DP)
    sent = instruction(config, insecure_noise_seed=None)
    first = ask(context, sent)
    restarted = Context(1, 99, {"partition-id": 0}, RecordDict(), context.run_config)
    again = ask(restarted, sent)
    assert same(first.tensors["d24fad"], again.tensors["d24fad"])
    assert first.epsilon == again.epsilon


def test_the_budget_outlives_the_node_and_ends_in_an_answer_that_is_no_update(tmp_path: Path) -> None:
    context, config = opened(tmp_path, *DP)
    spent = []
    for run in ("one", "two"):
        for round_ in (1, 2, 3):
            context = Context(1, 50 + round_, {"partition-id": 0}, RecordDict(), context.run_config)
            spent.append(ask(context, instruction(config, round_, run=run)))
    assert [reply.status for reply in spent] == ["ok"] * 3 + ["budget_spent"] * 3
    assert spent[2].epsilon == pytest.approx(8, rel=1e-3)
    assert spent[3].tensors == {}


def test_what_the_policy_forbids_is_refused_by_a_code_not_clipped_silently(tmp_path: Path) -> None:
    context, config = opened(tmp_path, "hospitals.north.policy={smallest_cohort: 5}")
    reply = ask(context, instruction(config))
    assert (reply.status, reply.tensors) == ("refused", {})
    assert "cohort too small" in reply.reason
    assert ask(context, instruction(config, cohort=5)).status == "ok"


def test_a_site_without_enough_images_says_so(tmp_path: Path) -> None:
    context, config = opened(tmp_path, "hospitals.north.holds.normal=2")
    reply = ask(context, instruction(config))
    assert (reply.status, reply.reason) == ("refused", "its policy refuses (no images)")


@pytest.fixture
def real_site(tmp_path: Path) -> Path:
    """A hospital on disk: images, site.yaml, policy.yaml."""
    rng = np.random.default_rng(0)
    for label, count in (("normal", 6), ("mass", 2)):
        folder = tmp_path / "secret-images" / "train" / label
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (64, 64), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"patient-jane-{i}.png")
    (tmp_path / "policy.yaml").write_text("privacy: off\n")
    (tmp_path / "site.yaml").write_text(
        f"name: st-anna\ndata: {{kind: folder, root: {tmp_path / 'secret-images'}, task: brain_mri}}\n"
        "policy: policy.yaml\nstate: state\n"
    )
    return tmp_path / "site.yaml"


def test_a_real_site_trains_on_its_own_folder_without_the_run_directory(real_site: Path, tmp_path: Path) -> None:
    _, config = opened(tmp_path / "run")
    context = Context(1, 2, {"site-config": str(real_site)}, RecordDict(), {})
    reply = ask(context, instruction(config))
    assert (reply.site, reply.status, reply.examples) == ("st-anna", "ok", {"d24fad": 6})


def spoil_policy(site: Path) -> None:
    (site.parent / "policy.yaml").write_text("privacy: maybe\n")


def lose_policy(site: Path) -> None:
    (site.parent / "policy.yaml").unlink()


def lose_images(site: Path) -> None:
    site.write_text(site.read_text().replace("secret-images", "gone"))


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (spoil_policy, "its settings cannot be used"),
        (lose_policy, "its settings cannot be used"),
        (lose_images, "its images cannot be used"),
    ],
)
def test_an_error_at_a_site_reaches_the_server_as_a_code_and_the_sites_log_as_a_story(
    real_site: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], what: str
) -> None:
    _, config = opened(tmp_path / "run")
    damage(real_site)
    packed = build_app(lambda event: None)(
        Message(instruction(config).pack(), dst_node_id=2, message_type=MessageType.TRAIN),
        Context(1, 2, {"site-config": str(real_site)}, RecordDict(), {}),
    )
    reply = Reply.unpack(packed.content)
    assert (reply.site, reply.status) == ("st-anna", "error")
    assert what in reply.reason
    assert str(tmp_path) not in repr(packed.content)
    assert str(tmp_path) in caplog.text


def test_an_unexpected_exception_leaks_nothing(
    real_site: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, config = opened(tmp_path / "run")

    def explode(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("patient-jane-0.png at /secret")

    monkeypatch.setattr("clients.app.train_round", explode)
    context = Context(1, 2, {"site-config": str(real_site)}, RecordDict(), {})
    reply = ask(context, instruction(config))
    assert (reply.status, reply.reason) == ("error", "an unexpected error; the site's own log tells it")
    assert "jane" not in repr(reply)
    assert "patient-jane-0.png" in caplog.text


def test_no_image_name_or_path_is_in_what_leaves(real_site: Path, tmp_path: Path) -> None:
    _, config = opened(tmp_path / "run")
    context = Context(1, 2, {"site-config": str(real_site)}, RecordDict(), {})
    message = Message(instruction(config).pack(), dst_node_id=2, message_type=MessageType.TRAIN)
    answer = build_app(lambda event: None)(message, context).content
    for record in answer.array_records.values():
        assert all(array.numpy().dtype == np.float32 for array in record.values())
    text = repr(answer.config_records) + repr(answer.metric_records) + repr(list(answer.array_records))
    assert "jane" not in text
    assert str(tmp_path) not in text
    assert os.sep not in json.dumps([dict(record) for record in answer.config_records.values()])
