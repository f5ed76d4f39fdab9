"""Settings: what is right comes back unchanged, what is wrong is one sentence that names key, file and remedy."""

from pathlib import Path

import pytest
import yaml

from fed_fsad.config import Config, load_config, parse_config, resolved_yaml
from fed_fsad.errors import ConfigError

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))

BASE = """
name: tiny
data: {kind: phantoms}
hospitals:
  - {name: north, holds: {organs: [oct]}}
  - {name: south, holds: {organs: [fundus]}, policy: {privacy: off}}
methods:
  d24fad: {teacher: {name: random}}
federation: {rounds: 3}
evaluation: {unseen_categories: [drusen]}
"""


def parsed(*overrides: str, text: str = BASE) -> Config:
    return parse_config(text, "my.yaml", overrides)


def message(*overrides: str, text: str = BASE) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(*overrides, text=text)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_are_filled_in_and_the_resolved_copy_reads_back_equal() -> None:
    config = parsed()
    again = parse_config(resolved_yaml(config), "config.yaml")
    assert again == config
    assert again.federation.min_replies is None
    assert yaml.safe_load(resolved_yaml(config))["methods"]["d24fad"]["supports"] == 2


def test_overrides_reach_nested_keys_and_list_items_by_name_and_position() -> None:
    config = parsed(
        "federation.rounds=7",
        "hospitals.north.holds.normal=5",
        "hospitals.1.policy.privacy=example",
        "hospitals.south.policy.epsilon=2",
        "methods.d24fad.teacher.name=embedded",
        "evaluation.shots=[1, 2]",
    )
    assert config.federation.rounds == 7
    assert config.holdings["north"].model_dump()["normal"] == 5
    assert config.hospitals[1].policy.epsilon == 2
    assert config.evaluation.shots == (1, 2)


def test_a_hospital_may_be_a_name_alone_and_one_that_only_watches_is_not_asked_to_train() -> None:
    config = parsed("hospitals.0={name: north}", "hospitals.1.role=predict-only")
    assert (set(config.holdings), config.trainers) == ({"south"}, ("north",))
    assert "but 1 hospitals train" in message("hospitals.1.role=predict-only", "federation.participants=2")


def test_categories_nobody_holds_are_withheld_from_every_method() -> None:
    assert parsed().training["d24fad"].withheld == ("drusen",)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("federation.ronds=3", ["my.yaml", "federation.ronds", "'rounds'"]),
        ("federaton.rounds=3", ["federaton", "'federation'"]),
        ("hospitals.0.holds.organ=[oct]", ["hospitals.0.holds.organ'", "'organs'"]),
        ("data.pol=3", ["data.pol'", "'pool'"]),
        ("methods.d24fad.teacher.nme=random", ["methods.d24fad.teacher.nme", "'name'"]),
        ("methods.d24fd={}", ["methods.d24fd", "d24fad"]),
        ("hospitals.south.policy.epsilom=3", ["hospitals.1.policy.epsilom", "'epsilon'"]),
    ],
)
def test_an_unknown_key_names_the_nearest_right_one(override: str, words: list[str]) -> None:
    found = message(override)
    assert all(word in found for word in words), found


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("federation.rounds=0", ["federation.rounds", "greater than or equal to 1", "0"]),
        ("federation.rounds=many", ["federation.rounds", "integer", "many"]),
        ("data.kind=fotos", ["data", "fotos"]),
        ("engine=slurm", ["engine", "'inprocess' or 'ray'", "slurm"]),
        ("federation.participants=3", ["participants", "2 hospitals"]),
        ("federation.min_replies=3", ["min_replies", "2 sites"]),
        ("data.pool=2", ["evaluation.shots", "data.pool"]),
        ("hospitals.1.name=north", ["two hospitals", "'north'"]),
        ("hospitals.1.holds.kind=folder", ["holds"]),
        ("hospitals.east.name=x", ["no item 'east'", "north, south"]),
        ("federation.rounds", ["key=value"]),
        ("name.first=x", ["name"]),
        ("evaluation.shots=[2", ["YAML"]),
        ("hospitals.0.policy.privacy=example", ["hospitals.0.policy", "epsilon"]),
        (
            "hospitals.0.policy={privacy: example, epsilon: 8, release_metrics: true}",
            ["release_metrics", "not covered"],
        ),
        ("hospitals=[{name: eye, role: predict-only}]", ["every hospital is predict-only", "role: train"]),
        ("hospitals.0.role=watch", ["hospitals.0.role", "predict-only"]),
        ("federation.late=wait", ["federation.late", "drop"]),
        ("federation.suspend_after=0", ["federation.suspend_after"]),
        ("hospitals.0.policy=/nowhere/policy.yaml", ["/nowhere/policy.yaml", "cannot be read"]),
    ],
)
def test_an_impossible_value_is_named_with_its_key(override: str, words: list[str]) -> None:
    found = message(override)
    assert all(word in found for word in words), found


def test_a_key_written_twice_is_an_error_not_a_silent_overwrite() -> None:
    assert "line 3" in message(text="name: a\nseed: 1\nname: b\n")


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "a: [1, 2", "a: \t- b"])
def test_text_that_is_no_config_is_called_so(text: str) -> None:
    assert message(text=text).startswith("my.yaml: ")


def test_a_missing_file_and_a_missing_key_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")
    assert "'name' is missing" in message(text="seed: 1\n")
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(tmp_path / "latin.yaml")


def test_a_policy_may_lie_in_a_file_of_its_own(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("privacy: example\nepsilon: 4\n")
    assert parsed(f"hospitals.0.policy={policy}").hospitals[0].policy.epsilon == 4


def test_the_data_root_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = "data: {kind: folder, root: images, task: brain_mri}\n"
    root = parsed(
        text=f"name: a\n{data}hospitals: [{{name: n, holds: {{}}}}]\nmethods: {{d24fad: {{}}}}\n"
    ).data.model_dump()["root"]
    assert root == tmp_path / "images"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_valid(path: Path) -> None:
    assert load_config(path).name
