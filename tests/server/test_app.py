"""The ServerApp and its run directory: nobody else trains there meanwhile."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import Context, RecordDict
from flwr.clientapp import ClientApp

from fed_fsad.durable import alone
from fed_fsad.errors import DataError, FederationError
from server import app as server_app
from simulations.grid import InProcessGrid

HOLD = """
import sys, time
from pathlib import Path
from fed_fsad.durable import alone
with alone(Path(sys.argv[1]), 0):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the run directory for itself."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run" / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def start(out: Path) -> None:
    grid = InProcessGrid(ClientApp(), [], {})
    server_app.app(grid, Context(1, 1, {}, RecordDict(), {"config": "none.yaml", "out": str(out), "resume": "auto"}))


@pytest.mark.usefixtures("holder")
def test_a_run_directory_in_use_is_refused_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_app, "PATIENCE_S", 0.5)
    with pytest.raises(FederationError, match="another process trains in"):
        start(tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_run_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="choose another --out"):
        start(tmp_path / "file" / "run")


def test_one_that_dies_lets_go(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(BlockingIOError), alone(tmp_path / "run" / ".lock", 0):
        pass
    holder.kill()
    with alone(tmp_path / "run" / ".lock", 20):
        assert holder.wait(20) != 0
