"""Flower's own simulation engine: the same two apps in Ray actors, started by `flwr run` on a private SuperLink."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import tomli_w

from fed_fsad import __version__
from fed_fsad.config import Config
from fed_fsad.errors import FederationError
from fed_fsad.progress import Progress
from fed_fsad.rundir import RunDir
from fed_fsad.switches import SWITCHES

CONNECTION = "fed-fsad-simulation"
START_S = 60.0
POLL_S = 0.5
STATUS_S = 10.0
BINARIES = Path(sys.executable).parent


def run_on_ray(config: Config, run: RunDir, progress: Progress) -> None:
    """Train the federation of `config` on Ray. Raises FederationError when the run does not complete."""
    run = RunDir(run.path.resolve())  # Flower's processes work in folders of their own
    home = run.path / "flower"
    home.mkdir(exist_ok=True)
    port = _free_port()
    path = os.pathsep.join([str(BINARIES), os.environ.get("PATH", "")])  # Flower starts its helpers by name
    environment = {**os.environ, **SWITCHES, "FLWR_HOME": str(home), "PATH": path}
    connection = {"address": f"127.0.0.1:{port}", "insecure": True}
    (home / "config.toml").write_text(tomli_w.dumps({"superlink": {"default": CONNECTION, CONNECTION: connection}}))
    _write_app(home / "app", run)
    with _superlink(home, port, environment):
        nodes = f"num-supernodes={len(config.hospitals)} client-resources-num-cpus={config.threads}"
        started = _flwr(["run", str(home / "app"), CONNECTION, "--federation-config", nodes], environment)
        _follow(run, str(started["run-id"]), environment, progress)
    summary = run.summary()
    if summary.get("status") != "completed":
        raise FederationError(summary.get("error") or f"Flower ended the run early; see {home / 'superlink.log'}")


def _write_app(folder: Path, run: RunDir) -> None:
    """A thin Flower app: it names our installed packages and this run, and carries no code of its own."""
    folder.mkdir(exist_ok=True)
    app = {
        "publisher": "fed-fsad",
        "components": {"serverapp": "server.app:app", "clientapp": "clients.app:app"},
        "config": {"config": str(run.path / "config.yaml"), "out": str(run.path), "resume": True},
    }
    project = {"name": "fed-fsad", "version": __version__, "description": "A simulation", "license": "Apache-2.0"}
    (folder / "pyproject.toml").write_text(tomli_w.dumps({"project": project, "tool": {"flwr": {"app": app}}}))


@contextmanager
def _superlink(home: Path, port: int, environment: dict[str, str]) -> Iterator[None]:
    """A SuperLink of our own on loopback, ended with everything it started."""
    command = [str(BINARIES / "flower-superlink"), "--insecure", "--simulation", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--disable-runtime-dependency-installation"]
    with (home / "superlink.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        _wait_until_healthy(process, port, home)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_healthy(process: subprocess.Popen[bytes], port: int, home: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=1.0).is_success:
                return
        except httpx.HTTPError:
            time.sleep(POLL_S)
    raise FederationError(f"Flower's SuperLink did not start; see {home / 'superlink.log'}")


def _follow(run: RunDir, identity: str, environment: dict[str, str], progress: Progress) -> None:
    """Show what the run writes until Flower says that it is over, whichever way."""
    done = max((event["round"] for event in run.events() if event["kind"] == "round" and event["complete"]), default=0)
    progress({"kind": "start", "round": done, "rounds": run.config().federation.rounds})
    shown, before, asked, over = len(run.events()), run.summary(), time.monotonic(), False
    while not over:
        if time.monotonic() - asked > STATUS_S or run.summary() != before:
            listed = _flwr(["list", CONNECTION, "--run-id", identity], environment)
            over, asked = str(listed["runs"][0]["status"]).startswith("finished"), time.monotonic()
        events = run.events()
        for event in events[shown:]:
            progress(event)
        shown = len(events)
        time.sleep(POLL_S)


def _flwr(arguments: Sequence[str], environment: dict[str, str]) -> dict[str, Any]:
    command = [str(BINARIES / "flwr"), *arguments, "--format", "json"]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    start = finished.stdout.find("{")
    answer: dict[str, Any] = json.loads(finished.stdout[start:]) if start >= 0 else {}
    if finished.returncode or not answer.get("success"):
        reason = str(answer.get("error-message") or finished.stderr or finished.stdout)
        raise FederationError(f"`flwr {arguments[0]}` failed ({' '.join(reason.split())}); see flower/superlink.log")
    return answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
