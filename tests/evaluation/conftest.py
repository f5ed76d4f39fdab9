"""One finished run and its page, for every test that only reads them; a copy for those that damage it."""

import shutil
from pathlib import Path

import pytest

from tests.evaluation.fake_run import fake_run
from tests.evaluation.reading import Page, read


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_run(tmp_path_factory.mktemp("runs") / "demo")


@pytest.fixture(scope="session")
def page(finished: Path) -> Page:
    return read(finished)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(finished, tmp_path / "demo"))
