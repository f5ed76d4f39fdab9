"""The site as a process: one at a time, found again, ended with all it started; its words are understood.

A stand-in takes the place of Flower's supernode and says what that says; the real one runs in tests/deployment.
"""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import service
from clients.settings import SiteSettings, load_settings
from clients.status import status
from fed_fsad.errors import ConfigError, FederationError
from tests.processes import running, wait

STANDIN = """\
    #!{python}
    import json, os, signal, subprocess, sys, time
    from pathlib import Path
    folder = Path({folder!r})
    (folder / "called.json").write_text(json.dumps({{"arguments": sys.argv[1:], "environment": dict(os.environ)}}))
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (folder / "child").write_text(str(child.pid))
    def end(number, frame):
        print("SuperNode terminated gracefully.", flush=True)
        sys.exit(0)
    signal.signal(signal.SIGTERM, end if "deaf" not in (folder / "says").read_text() else signal.SIG_IGN)
    print((folder / "says").read_text(), flush=True)
    if "Exit Code" in (folder / "says").read_text():
        sys.exit(49)
    time.sleep(60)
"""
LOST = "WARNING :   Connection attempt failed, retrying in 3.17 seconds"
REFUSED = "ERROR :     Exit Code: 305\nFailed to initialize the connection to the SuperLink.\n[code: 2004] Failed to\n"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SiteSettings]:
    """A site whose supernode is the stand-in, in a folder with a difficult name."""
    folder = tmp_path / "kit 'of' \"north\""
    folder.mkdir()
    for name, content in {"policy.yaml": "privacy: off\n", "node.key": "", "ca.crt": "", "says": "hello"}.items():
        (folder / name).write_text(content)
    (folder / "site.yaml").write_text(
        "name: north\ndata: {kind: phantoms, organs: [oct]}\npolicy: policy.yaml\nstate: state\n"
        "server: {address: 'fed.example.org:8443', ca: ca.crt, key: node.key}\n"
    )
    program = folder / "flower-supernode"
    program.write_text(textwrap.dedent(STANDIN).format(python=sys.executable, folder=str(folder)))
    program.chmod(0o755)
    monkeypatch.setattr(service, "BINARIES", folder)
    settings = load_settings(folder / "site.yaml")
    yield settings
    service.stop(settings.state, 0.1)


def says(site: SiteSettings, text: str) -> None:
    (site.policy.parent / "says").write_text(text)


def started(site: SiteSettings) -> int:
    """Start it; its process id, once it has said what it says."""
    pid = service.start(site.policy.parent / "site.yaml", site)
    wait(lambda: (site.policy.parent / "child").exists() and service.daemon(site.state).log.stat().st_size > 0)
    return pid


def test_it_is_started_with_the_sites_own_server_key_and_settings(site: SiteSettings) -> None:
    started(site)
    folder = site.policy.parent
    called = json.loads((folder / "called.json").read_text())
    options = dict(zip(called["arguments"][::2], called["arguments"][1::2], strict=True))
    assert options.pop("--port").isdecimal()
    config = options.pop("--node-config")
    assert tomllib.loads(Path(config).read_text()) == {"site-config": str(folder / "site.yaml")}
    assert config.endswith(".toml"), "that is what Flower knows a file by"
    assert options == {
        "--superlink": "fed.example.org:8443",
        "--root-certificates": str(folder / "ca.crt"),
        "--auth-supernode-private-key": str(folder / "node.key"),
    }
    environment = called["environment"]
    assert environment["FLWR_HOME"] == str(site.state / "flower")
    assert environment["FLWR_TELEMETRY_ENABLED"] == "0"
    assert (site.state.stat().st_mode & 0o777) == 0o700


def test_a_second_start_is_refused_with_the_process_id(site: SiteSettings) -> None:
    pid = started(site)
    with pytest.raises(FederationError, match=rf"runs already \(process {pid}\); stop it first"):
        service.start(site.policy.parent / "site.yaml", site)
    assert status(site).pid == pid


def test_stop_ends_it_and_its_children_and_may_be_said_twice(site: SiteSettings) -> None:
    pid = started(site)
    child = int((site.policy.parent / "child").read_text())
    assert running(child)
    assert service.stop(site.state)
    assert not running(pid)
    wait(lambda: not running(child))
    assert "terminated gracefully" in service.daemon(site.state).log.read_text()
    assert not service.stop(site.state)
    assert status(site).pid is None


def test_what_does_not_listen_is_killed(site: SiteSettings) -> None:
    says(site, "deaf")
    pid = started(site)
    assert service.stop(site.state, 0.3)
    assert not running(pid)


def test_the_id_of_a_killed_one_that_another_process_got_is_never_taken_for_it(site: SiteSettings) -> None:
    os.kill(started(site), signal.SIGKILL)
    wait(lambda: status(site).pid is None)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
        (site.state / "supernode.pid").write_text(str(stranger.pid))
        assert status(site).pid is None
        assert not service.stop(site.state)
        assert stranger.poll() is None, "it lives on"
        assert started(site) != stranger.pid
        stranger.kill()


def test_running_is_not_yet_connected(site: SiteSettings) -> None:
    started(site)
    found = status(site)
    assert (found.since is not None, found.connected, found.lost) == (True, False, None)


@pytest.mark.parametrize(
    ("said", "old", "connected"),
    [
        ("INFO :      SuperNode ID: 42", 0, True),
        (f"SuperNode ID: 42\n{LOST}", 0, False),
        (f"SuperNode ID: 42\n{LOST}\nConnection successful after 5 seconds", 0, True),
        (f"SuperNode ID: 42\n{LOST}\nReceived successfully", 0, True),
        (f"SuperNode ID: 42\nSent successfully\n{LOST}", 30, False),
        (f"SuperNode ID: 42\nSent successfully\n{LOST}", 40, True),
        (f"{LOST}", 40, False),
    ],
)
def test_connected_is_read_from_what_it_says_and_from_its_silence(
    site: SiteSettings, said: str, old: float, connected: bool
) -> None:
    says(site, said)
    started(site)
    log = service.daemon(site.state).log
    os.utime(log, (time.time() - old, time.time() - old))
    assert status(site).connected is connected


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (REFUSED, "the server does not accept this site's key"),
        ("Exit Code: 305\nhttpx.HTTPStatusError: Client error '401 Unauthorized' for url", "or the key was never"),
        ("SSL/TLS handshake error detected.\nExit Code: 305", "the server's certificate is not trusted"),
        ("Exit Code: 999\nsomething new", r"its last words in .*supernode\.log: Exit Code: 999 \| something new"),
    ],
)
def test_why_it_ended_is_said_with_a_remedy(site: SiteSettings, said: str, why: str) -> None:
    says(site, said)
    with pytest.raises(FederationError, match=why):
        service.start_connected(site.policy.parent / "site.yaml", site, 20, lambda text: None)
    if "new" not in said:
        assert why in str(status(site).lost)


def test_a_site_that_was_killed_tries_again_while_the_server_takes_it_for_alive(
    site: SiteSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "AGAIN_S", 0.1)
    says(site, "SuperNode ID: 42")
    os.kill(started(site), signal.SIGKILL)
    wait(lambda: status(site).pid is None)
    told: list[str] = []

    def accept_at_last(text: str) -> None:
        told.append(text)
        says(site, "SuperNode ID: 42")

    says(site, REFUSED)
    assert service.start_connected(site.policy.parent / "site.yaml", site, 20, accept_at_last)
    assert len(told) == 1
    assert "killed less than a minute ago" in told[0]


def test_the_log_is_of_this_start_and_the_one_before_is_kept(site: SiteSettings) -> None:
    for word in ("first", "second"):
        says(site, word)
        started(site)
        wait(lambda word=word: word in service.daemon(site.state).log.read_text())  # type: ignore[misc]
        service.stop(site.state)
    assert "first" not in service.daemon(site.state).log.read_text()
    assert "first" in (site.state / "supernode.log.1").read_text()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("node.key", r"the node key .*node\.key is missing; make one with: fed-fsad site keygen"),
        ("ca.crt", r"the certificate .*ca\.crt is missing; ask the coordinator"),
        ("flower-supernode", r"the site cannot start: .*flower-supernode: No such file"),
    ],
)
def test_what_is_missing_for_a_start_is_named(site: SiteSettings, damage: str, said: str) -> None:
    (site.policy.parent / damage).unlink()
    with pytest.raises(ConfigError, match=said):
        service.start(site.policy.parent / "site.yaml", site)
    assert status(site).pid is None


def test_in_the_foreground_it_speaks_here_too_and_hands_on_the_signal_and_the_exit_code(site: SiteSettings) -> None:
    folder = site.policy.parent
    code = (
        "import sys; from pathlib import Path; from clients import service; from clients.settings import load_settings;"
        f"service.BINARIES = Path({str(folder)!r}); site = Path({str(folder / 'site.yaml')!r});"
        "sys.exit(service.run(site, load_settings(site)))"
    )

    def run() -> "subprocess.Popen[str]":
        return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)

    with run() as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hello\n"
        assert status(site).pid not in (None, process.pid)
        process.terminate()
        assert "terminated gracefully" in process.stdout.read()
    assert process.returncode == 0
    assert status(site).pid is None
    says(site, "Exit Code: 305")
    with run() as process:
        process.communicate()
    assert process.returncode == 49, "so that systemd knows that it failed"
