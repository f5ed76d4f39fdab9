"""What stands in a kit: settings that load and explain every key, scripts and units that a host takes, a README."""

import configparser
import os
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
import typer
import yaml
from pydantic import BaseModel

from clients.settings import Connection, SiteSettings, load_settings
from fed_fsad import __version__
from fed_fsad.cli import app
from fed_fsad.config import load_config
from fed_fsad.data.settings import FolderData, PhantomRehearsal
from fed_fsad.privacy.policy import Policy, load_policy
from fed_fsad.provision.project import ServerAddress
from fed_fsad.provision.record import certificate_fingerprint
from tests.test_docs import check_command, commands

SITES = ("north", "south", "west")
HARDENING = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "PrivateTmp": "yes",
    "RestrictSUIDSGID": "yes",
    "CapabilityBoundingSet": "",
    "Restart": "always",
}


def test_the_kits_hold_what_they_should_and_keys_are_closed(fresh: Path) -> None:
    site = {
        "ca.crt",
        "site.yaml",
        "policy.yaml",
        "README.md",
        "start.sh",
        "install-service.sh",
        "fed-fsad-site.service",
    }
    pair = {"node.key", "node.pub"}
    assert {path.name for path in (fresh / "north").iterdir()} == site | pair
    assert {path.name for path in (fresh / "south").iterdir()} == site
    assert {path.name for path in (fresh / "west").iterdir()} == site | pair
    assert {str(path.relative_to(fresh / "server")) for path in (fresh / "server").glob("**/*") if path.is_file()} == {
        "ca.crt", "server.crt", "server.key", "loopback.crt", "loopback.key", "server.yaml", "nginx.conf",
        "federation.yaml", "app/pyproject.toml", "sites/north.pub", "sites/west.pub", "README.md", "start.sh",
        "install-service.sh", "fed-fsad-server.service",
    }  # fmt: skip
    secrets = [path for path in fresh.glob("**/*") if path.suffix == ".key"]
    assert len(secrets) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in fresh.iterdir()} == {0o700}
    assert not list(fresh.parent.glob("*.part"))


def test_no_secret_stands_anywhere_but_in_its_own_file(fresh: Path) -> None:
    for path in fresh.glob("**/*"):
        if path.is_file() and path.suffix != ".key":
            assert b"PRIVATE KEY" not in path.read_bytes(), path


# ---- settings


BLOCK = r"^# data:\n((?:#   .*\n)+)"
"""Where the other kind of images lies, commented out."""


def explained_keys(text: str) -> set[str]:
    """Keys above which a comment stands, or above the line before them; those of BLOCK as well."""
    inner = "".join(line.removeprefix("# ") for line in re.findall(BLOCK, text, flags=re.MULTILINE))
    found, explained = set(), False
    for line in [*text.splitlines(), "", *re.sub("^# ", "", inner, flags=re.MULTILINE).splitlines()]:
        key = re.match(r"\s*(?:# (?=[a-z_]+: [0-9.]+$))?([a-z_]+):(\s|$)", line)
        if key and explained:
            found.add(key.group(1))
        elif not key:
            explained = line.strip().startswith("#")
    return found


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize(
    ("name", "kinds"),
    [("site.yaml", (SiteSettings, Connection, FolderData, PhantomRehearsal)), ("policy.yaml", (Policy,))],
)
def test_every_key_stands_in_the_template_with_an_explanation(
    fresh: Path, site: str, name: str, kinds: tuple[type[BaseModel], ...]
) -> None:
    found = explained_keys((fresh / site / name).read_text())
    for kind in kinds:
        assert set(kind.model_fields) - found == set(), f"{name} of {site} does not explain these of {kind.__name__}"


def test_a_template_without_an_explanation_would_be_seen() -> None:
    assert explained_keys("# Why.\na: 1\nb: 2\n\nc: 3\n# d: is so\n") == {"a", "b"}


@pytest.mark.parametrize(("site", "role"), [("north", "train"), ("south", "train"), ("west", "predict-only")])
def test_the_filled_templates_load(fresh: Path, site: str, role: str) -> None:
    settings = load_settings(fresh / site / "site.yaml")
    assert (settings.name, settings.role) == (site, role)
    assert settings.policy == fresh / site / "policy.yaml"
    assert settings.server is not None
    assert settings.server.address == "fed.example.org:8443"
    assert (settings.server.ca, settings.server.key) == (fresh / site / "ca.crt", fresh / site / "node.key")
    policy = load_policy(settings.policy)
    assert policy == Policy(release_metrics=role == "predict-only")


def test_a_rehearsal_draws_what_the_run_says(fresh: Path) -> None:
    held = {"organs": ("oct",), "style": 1, "normal": 9, "abnormal": 2}
    run = {"seed": 7, "pose_jitter": 0.5, "lesion_contrast": 1.0, "multiple": 0.0, "withheld": ("drusen",)}
    data = load_settings(fresh / "north" / "site.yaml").data
    assert data == PhantomRehearsal.model_validate({"kind": "phantoms", **held, **run})
    assert isinstance(load_settings(fresh / "south" / "site.yaml").data, FolderData)


@pytest.mark.parametrize("site", SITES)
def test_the_other_kind_of_images_lies_ready_in_a_comment(fresh: Path, site: str, tmp_path: Path) -> None:
    text = (fresh / site / "site.yaml").read_text()
    active = yaml.safe_load(text)["data"]["kind"]
    block = re.search(BLOCK, text, flags=re.MULTILINE)
    assert block is not None
    swapped = re.sub(r"^data:\n(?:(?:  .*)?\n)+", "", text, count=1, flags=re.MULTILINE)
    (tmp_path / "site.yaml").write_text(swapped.replace(block[0], re.sub(r"^# ", "", block[0], flags=re.MULTILINE)))
    assert {active, load_settings(tmp_path / "site.yaml").data.kind} == {"folder", "phantoms"}


def test_the_servers_settings_say_the_same_everywhere(fresh: Path) -> None:
    server = fresh / "server"
    address = ServerAddress.model_validate(yaml.safe_load((server / "server.yaml").read_text()))
    assert address == ServerAddress(address="fed.example.org", port=8443, superlink_port=8000)
    text = (server / "nginx.conf").read_text()
    assert re.findall(r"listen (\S+) ssl;", text) == ["8443"]
    assert set(re.findall(r"proxy_pass (\S+);", text)) == {"https://127.0.0.1:8000"}
    assert "# What sites dial" in (server / "server.yaml").read_text()
    assert [hospital.name for hospital in load_config(server / "federation.yaml").hospitals] == list(SITES)


def test_the_app_names_code_and_carries_none(fresh: Path) -> None:
    assert [path.name for path in (fresh / "server" / "app").iterdir()] == ["pyproject.toml"]
    app = tomllib.loads((fresh / "server" / "app" / "pyproject.toml").read_text())
    assert app["project"]["version"] == __version__
    assert app["tool"]["flwr"]["app"]["components"] == {"serverapp": "server.app:app", "clientapp": "clients.app:app"}
    assert "dependencies" not in app["project"]


# ---- instructions


@pytest.mark.parametrize("site", SITES)
def test_a_sites_readme_is_one_page_about_that_very_site(fresh: Path, site: str) -> None:
    text = (fresh / site / "README.md").read_text()
    for word in (site, "fed.example.org:8443", "Jane Doe, +1 555 0100, jane@example.org", __version__):
        assert word in text
    assert certificate_fingerprint(fresh / site / "ca.crt") in text
    assert not any(other in text for other in SITES if other != site)
    assert ("never trains" in text) == (site == "west")
    assert ("fed-fsad site keygen site.yaml" in text) == (site == "south")
    assert len(text.splitlines()) <= 60


@pytest.mark.parametrize("name", ["server", *SITES])
def test_every_file_that_a_readme_names_is_there_or_will_be(fresh: Path, name: str) -> None:
    later = {
        "server": {"flower/", "var/", "runs/", "sites/NAME.pub", "sites/revoked/"},
        "south": {"node.key", "node.pub"},
    }
    rows = re.findall(r"^\| (`[^|]+) \|", (fresh / name / "README.md").read_text(), flags=re.MULTILINE)
    named = {file for row in rows for file in re.findall(r"`([^`]+)`", row)}
    assert len(named) > 6
    assert {file for file in named if not (fresh / name / file).exists()} <= later.get(name, set())


@pytest.mark.parametrize("name", ["server", *SITES])
def test_every_command_that_a_kit_names_is_one(fresh: Path, name: str) -> None:
    group = typer.main.get_command(app)
    found = list(commands((fresh / name / "README.md").read_text(), "fed-fsad"))
    found += [line.split()[2:] for line in (fresh / name / "start.sh").read_text().splitlines() if "exec " in line]
    unit = next((fresh / name).glob("*.service")).read_text()
    found += [line.split()[1:] for line in unit.splitlines() if line.startswith("ExecStart=")]
    assert len(found) >= 5
    for words in found:
        check_command(group, words, name)


# ---- scripts and units


@pytest.mark.parametrize("name", ["server", *SITES])
def test_scripts_are_executable_shell(fresh: Path, name: str) -> None:
    for script in ("start.sh", "install-service.sh"):
        path = fresh / name / script
        assert os.access(path, os.X_OK)
        subprocess.run(["sh", "-n", str(path)], check=True)


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """A folder with a fed-fsad that tells what it was called with."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "fed-fsad").write_text('#!/bin/sh\necho "$PWD: $*"\n')
    (folder / "fed-fsad").chmod(0o755)
    return folder


def called(script: Path, programs: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    return subprocess.run([str(script), *arguments], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("name", "command"), [("server", "server start ."), ("north", "site start site.yaml")])
def test_the_start_script_works_from_anywhere_and_wherever_the_kit_was_copied(
    fresh: Path, tmp_path: Path, bin_folder: Path, name: str, command: str
) -> None:
    copy = shutil.copytree(fresh / name, tmp_path / "a new place" / name)
    assert called(copy / "start.sh", bin_folder).stdout == f"{copy}: {command}\n"


@pytest.mark.skipif(os.getuid() != 0, reason="giving files to another user needs root")
@pytest.mark.parametrize(
    ("name", "unit", "command"),
    [
        ("server", "fed-fsad-server.service", "server start --foreground KIT"),
        ("north", "fed-fsad-site.service", "site start --foreground KIT/site.yaml"),
    ],
)
def test_the_unit_that_is_installed_is_whole_and_hardened(
    fresh: Path, tmp_path: Path, bin_folder: Path, name: str, unit: str, command: str
) -> None:
    kit = shutil.copytree(fresh / name, tmp_path / name)
    shutil.chown(kit, "daemon")
    done = called(kit / "install-service.sh", bin_folder, str(tmp_path))
    assert done.returncode == 0, done.stderr
    written = configparser.ConfigParser(interpolation=None)
    written.optionxform = str  # type: ignore[assignment,method-assign]
    text = (tmp_path / unit).read_text()
    written.read_string(text)
    assert not re.search(r"^[^#]*@[A-Z]+@", text, flags=re.MULTILINE)
    service = written["Service"]
    assert service["ExecStart"] == f"{bin_folder / 'fed-fsad'} {command.replace('KIT', str(kit))}"
    assert (service["User"], service["WorkingDirectory"], service["ReadWritePaths"]) == ("daemon", str(kit), str(kit))
    assert {key: service[key] for key in HARDENING} == HARDENING
    assert "rehearsal" in written["Unit"]["Description"]
    if shutil.which("systemd-analyze"):
        checked = subprocess.run(
            ["systemd-analyze", "verify", str(tmp_path / unit)], capture_output=True, text=True, check=False
        )
        assert unit not in checked.stderr, checked.stderr


def test_a_service_of_root_is_refused(fresh: Path, tmp_path: Path, bin_folder: Path) -> None:
    if fresh.owner() != "root":
        pytest.skip("the kits belong to somebody else than root here")
    done = called(fresh / "north" / "install-service.sh", bin_folder, str(tmp_path))
    assert done.returncode == 1
    assert "belongs to root; give it to a user of its own" in done.stderr
    assert not list(tmp_path.glob("*.service"))
