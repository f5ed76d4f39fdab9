"""project.yaml: what can be meant is taken, everything else is one sentence that says what to write."""

import re
from pathlib import Path

import pytest

from fed_fsad.config import parse_config
from fed_fsad.errors import ConfigError
from fed_fsad.provision.project import load_project
from tests.provision.conftest import PROJECT, made


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("federation:\n", "day: 9\nfederation:\n", "unknown key 'day'; did you mean 'days'"),
        ("contact: Jane Doe, +1 555 0100, jane@example.org\n", "", r"the key 'contact' is missing"),
        ("name: south", "name: north", "two sites are called 'north'"),
        ("name: south", "name: North", "two sites are called 'north'"),
        ("name: south", "name: Server", "a site cannot be called 'server'"),
        ("name: south", "name: ../south", r"sites\.1\.name: .*match pattern.*; change it"),
        ("role: predict-only", "role: predict", r"sites\.2\.role: .*'predict-only'.*; change it"),
        ("address: fed.example.org", "address: https://fed.example.org", r"server\.address: "),
        ("superlink_port: 8000", "superlink_port: 8443", "give each a port of its own"),
        ("port: 8443", "port: 84430", r"server\.port: .*65535"),
        ("federation:\n", "days: 400\nauthority_days: 400\nfederation:\n", "days must be fewer than authority_days"),
        ("federation:\n", "curve: P-521\nfederation:\n", r"curve: .*'P-256' or 'P-384'.*; change it"),
        ("  - {name: north", "  - {name: [north", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_a_remedy(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in PROJECT
    path = tmp_path / "project.yaml"
    path.write_text(PROJECT.replace(old, new, 1))
    with pytest.raises(ConfigError, match=said) as error:
        load_project(path)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rounds: 2", "ronds: 2", r"unknown key 'federation\.ronds'; did you mean 'rounds'"),
        ("  seed: 7", "  hospitals: [{name: north}]", "leave out `hospitals`"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_anything_is_made(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in PROJECT
    text = PROJECT.replace(old, new, 1)
    with pytest.raises(ConfigError, match=said):
        made(tmp_path, text)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["project.yaml"]


def test_sites_that_only_predict_make_no_federation(tmp_path: Path) -> None:
    text = re.sub(r"  - \{name: (north|south).*\n", "", PROJECT)
    with pytest.raises(ConfigError, match="every hospital is predict-only"):
        made(tmp_path, text)


def test_a_federation_file_keeps_its_comments_and_is_meant_from_the_projects_folder(tmp_path: Path) -> None:
    head, run = PROJECT.split("federation:\n", 1)
    lines = [line.removeprefix("  ") for line in run.splitlines()]
    (tmp_path / "run.yaml").write_text("# why we do it so\nname: chest\n" + "\n".join(lines) + "\n")
    kits = made(tmp_path, head + "federation: run.yaml\n")
    text = (kits.server / "federation.yaml").read_text()
    assert text.startswith("# why we do it so\nname: chest\n")
    config = parse_config(text, "federation.yaml")
    assert [(hospital.name, hospital.role, hospital.holds) for hospital in config.hospitals] == [
        ("north", "train", None),
        ("south", "train", None),
        ("west", "predict-only", None),
    ]


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: the project cannot be read"):
        load_project(tmp_path / "nowhere.yaml")
    path = tmp_path / "project.yaml"
    path.write_text(PROJECT.split("federation:\n", 1)[0] + "federation: run.yaml\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: the federation's config cannot be read"):
        load_project(path).federation_yaml()
