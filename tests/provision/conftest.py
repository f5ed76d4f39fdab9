"""A small project, its kits made once for the tests that only read them."""

import shutil
from pathlib import Path

import pytest

from fed_fsad.provision.kits import Kits
from fed_fsad.provision.make import make
from fed_fsad.provision.project import load_project

PROJECT = """
name: rehearsal
contact: Jane Doe, +1 555 0100, jane@example.org
server: {address: fed.example.org, port: 8443, superlink_port: 8000}
sites:
  - {name: north, rehearsal: {organs: [oct], normal: 9, abnormal: 2, style: 1}}
  - {name: south, own_key: true}
  - {name: west, role: predict-only}
federation:
  seed: 7
  data: {kind: phantoms, test_normal: 6, test_abnormal: 8, pool: 4, organs: [oct], pose_jitter: 0.5}
  methods: {d24fad: {teacher: {name: random}, image_size: 64}}
  federation: {rounds: 2}
  evaluation: {shots: [2], unseen_categories: [drusen]}
"""


def made(folder: Path, text: str = PROJECT) -> Kits:
    """The kits of a project in FOLDER/kits."""
    folder.mkdir(exist_ok=True)
    (folder / "project.yaml").write_text(text)
    return make(load_project(folder / "project.yaml"), folder / "kits")


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kits that nobody changes."""
    return made(tmp_path_factory.mktemp("fresh")).folder


@pytest.fixture
def kits(fresh: Path, tmp_path: Path) -> Kits:
    """Kits that a test may change."""
    shutil.copytree(fresh, tmp_path / "kits")
    return Kits.open(tmp_path / "kits")
