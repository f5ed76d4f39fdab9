"""`fed-fsad server` from a terminal: what cannot start says why; what starts is real, and survives being killed."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fed_fsad.provision.authority import issue
from fed_fsad.provision.kits import Kits
from server.kit import ServerKit
from server.proxy import FOLDERS, Proxy
from server.superlink import free_port
from tests.cli.test_cli import called
from tests.provision.conftest import PROJECT, made

NGINX = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), *FOLDERS]))
READY = "the server answers at https://localhost:"
COMMAND = [sys.executable, "-m", "fed_fsad.cli"]
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def own_kits(folder: Path) -> Kits:
    """Kits of a server on this host, on free ports."""
    text = PROJECT.replace("fed.example.org", "localhost")
    return made(folder, text.replace("8443", str(free_port())).replace("8000", str(free_port())))


def expire(kits: Kits, name: str) -> None:
    certificate, key = issue(kits.authority, ["localhost"], 0, "P-384")
    (kits.server / f"{name}.crt").write_bytes(certificate)
    (kits.server / f"{name}.key").write_bytes(key)


def broken(name: str, kits: Kits) -> None:
    """One thing that goes wrong on real hosts."""
    server = kits.server
    match name:
        case "expired":
            expire(kits, "server")
        case "expired inside":
            expire(kits, "loopback")
        case "open key":
            (server / "server.key").chmod(0o644)
        case "lost file":
            (server / "loopback.crt").unlink()
        case "mistyped":
            text = (server / "server.yaml").read_text()
            (server / "server.yaml").write_text(text.replace("superlink_port", "superlink_prot"))
        case "wrong folder":
            (server / "server.yaml").unlink()


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("expired", r"server\.crt has expired on .* renew it with `fed-fsad provision rotate KITS server`"),
        ("expired inside", r"loopback\.crt has expired on"),
        ("open key", r"server\.key can be read by other users; close it with: chmod 600"),
        ("lost file", r"loopback\.crt is missing; copy the whole kit again"),
        ("mistyped", r"server\.yaml: unknown key 'superlink_prot'; did you mean 'superlink_port'"),
        ("wrong folder", "is no server kit; give the folder `server`"),
    ],
)
def test_a_kit_that_cannot_be_used_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, sentence: str
) -> None:
    kits = own_kits(tmp_path)
    broken(name, kits)
    found, out, err = called(monkeypatch, capsys, "server", "start", str(kits.server))
    assert (found, out) == (2, "")
    assert err.count("\n") == 1
    assert re.search(sentence, err), err
    assert not list(kits.server.glob("var/*.pid"))


@needs_nginx
def test_a_taken_port_is_said_and_nothing_is_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kits = own_kits(tmp_path)
    kit = ServerKit.open(kits.server)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", kit.address.superlink_port))
        taken.listen()
        code, _, err = called(monkeypatch, capsys, "server", "start", str(kits.server))
    assert code == 1
    assert f"port {kit.address.superlink_port} is taken by another process" in err
    assert "choose another superlink_port" in err
    assert kit.superlink.daemon.pid() is None


def test_what_needs_a_running_server_says_how_to_start_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = str(own_kits(tmp_path).server)
    for command in ("run", "sync"):
        code, _, err = called(monkeypatch, capsys, "server", command, kit)
        assert code == 1
        assert err == f"error: the server does not run; start it with `fed-fsad server start {kit}`\n"
    code, out, _ = called(monkeypatch, capsys, "server", "status", kit, "--json")
    assert code == 1
    found = json.loads(out)
    assert found["superlink"] == found["nginx"] == {"pid": None, "answers": False}
    assert found["sites"] == {"north": "not registered", "south": "no key yet", "west": "not registered"}
    assert called(monkeypatch, capsys, "server", "stop", kit) == (0, "the server did not run\n", "")


def test_starting_and_stopping_do_not_wait_for_the_heavy_libraries() -> None:
    code = "import sys, server.service; print([name for name in ('torch', 'flwr', 'sklearn') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# ---- for real


def said(*words: str) -> str:
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wait_until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@contextmanager
def foreground(kits: Kits) -> Iterator[subprocess.Popen[bytes]]:
    """The server as systemd runs it; it answers when this is entered."""
    log = kits.folder / "foreground.log"
    command = [*COMMAND, "server", "start", "--foreground", str(kits.server)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        wait_until(lambda: READY in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.kill()
        process.wait()
        for daemon in (Proxy(ServerKit.open(kits.server)).daemon, ServerKit.open(kits.server).superlink.daemon):
            daemon.stop()


@needs_nginx
@pytest.mark.slow
def test_the_server_knows_who_may_come_and_survives_being_killed(tmp_path: Path) -> None:
    kits = own_kits(tmp_path)
    kit, registered = ServerKit.open(kits.server), kits.server / "var" / "registered.json"
    with foreground(kits) as process:
        first, before = kit.superlink.daemon.pid(), json.loads(registered.read_text())
        assert first is not None
        assert set(before) == {"north", "west"}
        assert READY in said("server", "start", str(kits.server)), "a second start changes nothing"
        assert kit.superlink.daemon.pid() == first
        assert "unregistered: north" in said("provision", "revoke-site", str(kits.folder), "north")
        found = json.loads(said("server", "status", str(kits.server), "--json"))
        assert found["sites"] == {"south": "no key yet", "west": "registered"}
        assert found["superlink"] == {"pid": first, "answers": True}
        assert found["nginx"]["answers"]
        after = json.loads(registered.read_text())
        assert after == {"west": before["west"]}
        os.kill(first, signal.SIGKILL)
        assert process.wait(timeout=60) == 1, "systemd starts it again"
        assert "error: SuperLink has ended; " in (kits.folder / "foreground.log").read_text()
        assert Proxy(kit).daemon.pid() is None
    with foreground(kits) as process:
        assert json.loads(registered.read_text()) == after, "they are in the database, nobody registers twice"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert kit.superlink.daemon.pid() is None, "what was started in the foreground ends with it"
