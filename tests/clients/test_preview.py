"""`site preview`: what it lists is what a round sends, byte for byte, and nothing at the site changes."""

from pathlib import Path

import pytest
from flwr.app import Context, RecordDict

from clients.app import app
from clients.preview import Preview, preview
from fed_fsad.config import Config, parse_config
from fed_fsad.errors import ConfigError
from fed_fsad.messages import Instruction, Reply, wire_bytes
from simulations.grid import InProcessGrid
from tests.clients.test_hostile_server import PRIVATE, real_site
from tests.clients.test_train import TEXT, ask, instruction

COHORT = "federation.participants=1"


@pytest.fixture
def config() -> Config:
    return parse_config(TEXT, "federation.yaml", (COHORT,))


def previewed(folder: Path, config: Config | None) -> Preview:
    return preview(folder / "site.yaml", config, lambda event: None)


def asked(config: Config) -> Instruction:
    return instruction(config, cohort=1, insecure_noise_seed=None)


def really(folder: Path, sent: Instruction) -> Reply:
    """The same round for good."""
    InProcessGrid(app, [], {})  # Flower wants to know which run its messages are of
    return ask(Context(1, 2, {"site-config": str(folder / "site.yaml")}, RecordDict(), {}), sent)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_lists_what_a_round_sends_and_touches_nothing(tmp_path: Path, config: Config) -> None:
    real_site(tmp_path, "privacy: off\n")
    before, first = everything(tmp_path), asked(config)
    found = previewed(tmp_path, config)
    assert everything(tmp_path) == before
    assert not (tmp_path / "state").exists()
    sent = really(tmp_path, first)
    assert [(tensor.method, tensor.name, tensor.shape) for tensor in found.tensors] == [
        (method, name, tuple(value.shape)) for method, own in sent.tensors.items() for name, value in own.items()
    ]
    assert {tensor.dtype for tensor in found.tensors} == {"float32"}
    assert found.bytes == sum(tensor.bytes for tensor in found.tensors) == wire_bytes([sent.pack()])
    figures = dict(found.figures["metrics.d24fad"])
    assert figures.pop("num-examples") == sent.examples["d24fad"] == 9
    assert figures == pytest.approx(sent.metrics["d24fad"]), "the very round, not one like it"
    assert (found.texts["status"], found.texts["site"], found.epsilon, found.trouble) == ("ok", "st-anna", None, None)


def test_under_privacy_it_tells_epsilon_before_and_after_and_neither_loss_nor_count(
    tmp_path: Path, config: Config
) -> None:
    real_site(tmp_path, PRIVATE)
    first = really(tmp_path, asked(config))
    ledger = (tmp_path / "state" / "ledger.jsonl").read_bytes()
    found = previewed(tmp_path, config)
    assert (tmp_path / "state" / "ledger.jsonl").read_bytes() == ledger
    assert found.epsilon is not None
    assert found.epsilon[0] == first.epsilon
    assert found.epsilon[0] < found.epsilon[1] == found.texts["epsilon"] < 8
    assert found.figures == {"metrics.d24fad": {}}
    assert {tensor.name.split("/")[0] for tensor in found.tensors} == {"affine"}
    assert any("the number of images" in text for text in found.stays)


def test_a_refusal_is_shown_as_the_server_gets_it_and_as_the_site_knows_it(tmp_path: Path, config: Config) -> None:
    real_site(tmp_path, "smallest_cohort: 2\n")
    found = previewed(tmp_path, config)
    assert (found.tensors, found.bytes, found.figures) == ((), 0, {})
    assert found.texts["reason"] == "its policy refuses (cohort too small)"
    assert "the round has 1 sites and the policy asks for 2: invite more sites" in str(found.trouble)


def test_a_predict_only_site_sends_figures_and_no_tensor(tmp_path: Path, config: Config) -> None:
    real_site(tmp_path, "release_metrics: true\n")
    text = "name: x\nrole: predict-only\ndata: {kind: phantoms, organs: [oct], normal: 12, abnormal: 8}\n"
    (tmp_path / "site.yaml").write_text(f"{text}policy: policy.yaml\nstate: state\n")
    found = previewed(tmp_path, config)
    assert (found.tensors, found.texts["role"], list(found.figures)) == ((), "predict-only", ["evaluation.d24fad"])
    assert 0 <= found.figures["evaluation.d24fad"]["headline"] <= 1


def test_without_a_config_every_allowed_method_is_shown_with_its_own_settings(tmp_path: Path) -> None:
    real_site(tmp_path, "methods: {sdmad: [context]}\nsmallest_cohort: 3\n")
    found = previewed(tmp_path, None)
    assert [(tensor.method, tensor.name) for tensor in found.tensors] == [("sdmad", "context/tokens")]
    assert found.texts["status"] == "ok", "the cohort is taken to be large enough: only the server knows it"


def test_what_is_wrong_with_the_site_itself_is_said_at_once(tmp_path: Path, config: Config) -> None:
    real_site(tmp_path, "privacy: perhaps\n")
    with pytest.raises(ConfigError, match=r"policy\.yaml: privacy: "):
        previewed(tmp_path, config)
