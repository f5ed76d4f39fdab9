"""The door, with real nginx and real certificates before a stand-in for Flower that writes down what reaches it."""

import http.client
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fed_fsad.errors import FederationError
from fed_fsad.provision.kits import Kits
from fed_fsad.provision.trust import renew_certificates
from server import proxy as proxy_module
from server.kit import ServerKit
from server.proxy import FOLDERS, Proxy
from server.superlink import free_port
from tests.provision.conftest import PROJECT, made

NGINX = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), *FOLDERS]))
pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
ROUTES = ("register-node", "activate-node", "pull-messages", "push-object", "send-node-heartbeat")
CLOSED = (
    "/", "/docs", "/openapi.json", "/v1", "/v1/control/list-runs", "/v1/control/start-run", "/v1/runtime/pull-task",
    "/v1/responses", "/v1/fleet", "/v1/fleet/", "/health/", "/healthz", "/v1/fleet/../control/start-run",
    "/v1/fleet/%2e%2e/control/start-run", "/v1/control/../fleet/pull-messages", "/v1/fleet/..%2fcontrol/start-run",
    "/v1/control/start-run%3f/../../fleet/x", "/v1/fleet/pull-messages?x=/v1/control/start-run",
    "/V1/CONTROL/start-run", "//v1/control/start-run", "/v1/fleet//../../v1/control/start-run",
    "/v1/fleet/\\..\\control\\start-run",
)  # fmt: skip


class StandIn(BaseHTTPRequestHandler):
    """Answers everything with what it was sent, so that what must not arrive would be seen."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.seen.append(self.path)  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *args: object) -> None:
        """Nothing on the screen."""


@contextmanager
def standing_in(kit: ServerKit, certificate: Path) -> Iterator[list[str]]:
    """The paths that reach the kit's SuperLink."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_suffix(".key"))
    server = ThreadingHTTPServer(("127.0.0.1", kit.address.superlink_port), StandIn)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    seen: list[str] = []
    server.seen = seen  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def own_kits(folder: Path) -> Kits:
    """Kits of a server on this host, on free ports."""
    text = PROJECT.replace("fed.example.org", "localhost")
    return made(folder, text.replace("8443", str(free_port())).replace("8000", str(free_port())))


@pytest.fixture(scope="module")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Kits:
    return own_kits(tmp_path_factory.mktemp("proxy"))


@pytest.fixture(scope="module")
def kit(kits: Kits) -> ServerKit:
    return ServerKit.open(kits.server)


@pytest.fixture(scope="module")
def door(kit: ServerKit) -> Iterator[list[str]]:
    """What came through, while nginx runs."""
    with standing_in(kit, kit.folder / "loopback.crt") as seen:
        Proxy(kit).start()
        try:
            yield seen
        finally:
            Proxy(kit).daemon.stop()


def connected(kit: ServerKit) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=kit.folder / "ca.crt")
    return http.client.HTTPSConnection("localhost", kit.address.port, context=context, timeout=20)


def asked(kit: ServerKit, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """(status, body), the path sent letter by letter."""
    connection = connected(kit)
    connection.putrequest(method, path, skip_host=False, skip_accept_encoding=True)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    response = connection.getresponse()
    return response.status, response.read()


def wait_until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def listening(kit: ServerKit) -> bool:
    with suppress(OSError), socket.create_connection(("localhost", kit.address.port), timeout=1):
        return True
    return False


@pytest.mark.parametrize("route", ROUTES)
def test_flowers_fleet_calls_come_through(kit: ServerKit, door: list[str], route: str) -> None:
    assert asked(kit, "POST", f"/v1/fleet/{route}", b"hello") == (200, b"hello")
    assert door[-1] == f"/v1/fleet/{route}"


def test_the_health_question_comes_through(kit: ServerKit, door: list[str]) -> None:
    assert asked(kit, "GET", "/health")[0] == 200
    assert Proxy(kit).healthy()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", CLOSED)
def test_nothing_else_does(kit: ServerKit, door: list[str], path: str, method: str) -> None:
    before = len(door)
    assert asked(kit, method, path, b"" if method == "POST" else None)[0] in (400, 403, 404)
    assert len(door) == before


def test_what_was_refused_is_written_down_and_what_was_not_is_not(kit: ServerKit, door: list[str]) -> None:
    log = kit.var / "refused.log"
    asked(kit, "POST", "/v1/fleet/pull-messages", b"")
    before = log.read_text()
    asked(kit, "GET", "/v1/control/list-runs")
    asked(kit, "POST", "/v1/fleet/pull-messages", b"")
    assert [line.split('"')[1] for line in log.read_text()[len(before) :].splitlines()] == [
        "GET /v1/control/list-runs HTTP/1.1"
    ]


def test_flowers_largest_objects_pass_both_ways_and_larger_ones_do_not(kit: ServerKit, door: list[str]) -> None:
    content = os.urandom(6 * 1024 * 1024)
    assert asked(kit, "POST", "/v1/fleet/push-object", content) == (200, content)
    connection = connected(kit)
    connection.putrequest("POST", "/v1/fleet/push-object")
    connection.putheader("Content-Length", str(17 * 1024 * 1024))
    connection.endheaders()
    assert connection.getresponse().status == 413


def test_only_tls_and_no_old_one(kit: ServerKit, door: list[str]) -> None:
    with socket.create_connection(("localhost", kit.address.port), timeout=10) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"400 Bad Request" in plain.recv(4096)

    def shaken(version: ssl.TLSVersion) -> str | None:
        context = ssl.create_default_context(cafile=kit.folder / "ca.crt")
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with (
            socket.create_connection(("localhost", kit.address.port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as secure,
        ):
            return secure.version()

    assert shaken(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert shaken(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises(ssl.SSLError):
        shaken(ssl.TLSVersion.TLSv1_1)


def test_all_that_nginx_writes_lies_in_the_kit(kit: ServerKit, door: list[str]) -> None:
    pid = Proxy(kit).daemon.pid()
    files = {os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()}
    written = {name for name in files if name.startswith("/") and not name.startswith(("/dev/", str(kit.folder)))}
    assert written == set()
    assert (kit.var / "temp" / "body").is_dir()


def test_a_new_certificate_is_shown_without_a_break(kits: Kits, kit: ServerKit, door: list[str]) -> None:
    def shown() -> bytes | None:
        connection = connected(kit)
        connection.connect()
        certificate: bytes | None = connection.sock.getpeercert(binary_form=True)
        return certificate

    def on_disk() -> bytes:
        return ssl.PEM_cert_to_DER_cert((kit.folder / "server.crt").read_text())

    assert shown() == on_disk()
    pid = Proxy(kit).daemon.pid()
    loopback = [(kit.folder / name, (kit.folder / name).read_bytes()) for name in ("loopback.crt", "loopback.key")]
    renew_certificates(kits)
    for path, content in loopback:  # the stand-in still shows the old one, which is of the same authority
        path.write_bytes(content)
    assert shown() != on_disk()
    Proxy(kit).reload()
    wait_until(lambda: shown() == on_disk())
    assert Proxy(kit).daemon.pid() == pid


def test_a_stranger_in_the_superlinks_place_gets_nothing(tmp_path: Path) -> None:
    own = ServerKit.open(own_kits(tmp_path / "own").server)
    foreign = own_kits(tmp_path / "foreign").server / "loopback.crt"
    with standing_in(own, foreign) as seen:
        Proxy(own).check()
        Proxy(own).daemon.start(
            [str(NGINX), "-p", f"{own.folder}/", "-c", "nginx.conf", "-g", "daemon off;"], os.environ
        )
        try:
            wait_until(lambda: listening(own))
            assert asked(own, "POST", "/v1/fleet/pull-messages", b"secret")[0] == 502
            assert not Proxy(own).healthy()
        finally:
            Proxy(own).daemon.stop()
    assert seen == []


@pytest.mark.skipif(os.getuid() != 0, reason="becoming another user needs root")
def test_it_needs_no_rights(kit: ServerKit, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = Path(shutil.copytree(kit.folder, Path(f"/tmp/fed-fsad-test-{os.getpid()}")))
    try:
        shutil.rmtree(folder / "var", ignore_errors=True)
        (folder / "var" / "temp").mkdir(parents=True)
        for path in (folder, *folder.glob("**/*")):
            shutil.chown(path, "daemon")
        tested = subprocess.run(
            [str(NGINX), "-p", f"{folder}/", "-c", "nginx.conf", "-t"],
            user="daemon", group="daemon", extra_groups=[], capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert tested.returncode == 0, tested.stderr
        assert "test is successful" in tested.stderr
    finally:
        shutil.rmtree(folder)


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    own = ServerKit.open(own_kits(tmp_path).server)
    with socket.socket() as taken:
        taken.bind(("", own.address.port))
        taken.listen()
        with pytest.raises(FederationError, match=rf"port {own.address.port} is taken by another process .*; end that"):
            Proxy(own).start()
    assert Proxy(own).daemon.pid() is None


def test_a_configuration_that_was_broken_is_named_with_its_line(tmp_path: Path) -> None:
    own = ServerKit.open(own_kits(tmp_path).server)
    path = own.folder / "nginx.conf"
    path.write_text(path.read_text().replace("server_tokens off;", "server_token off;"))
    with pytest.raises(
        FederationError, match=r'nginx refuses .*unknown directive "server_token" .*nginx\.conf:\d+; mend'
    ):
        Proxy(own).check()


def test_a_host_without_nginx_is_told_how_to_get_it(
    kit: ServerKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(proxy_module, "FOLDERS", (str(tmp_path),))
    with pytest.raises(FederationError, match=r"nginx is not installed; .*apt install nginx-light.*dnf install nginx"):
        Proxy(kit).check()
