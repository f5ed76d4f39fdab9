"""The way to the server on real loopback sockets: whatever is wrong on it is named, and nothing that hangs on it."""

import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from clients.check import CHECKS, Line, inspect, network
from clients.settings import SiteSettings

KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(
    name: str, first: int, last: int, issuer: x509.Certificate | None, key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """For `name`, from `first` to `last` days from now, signed with `key`; an authority without an issuer."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        issuer_name=issuer.subject if issuer else subject,
        subject_name=subject,
        public_key=KEY.public_key() if issuer else key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now + timedelta(days=first),
        not_valid_after=now + timedelta(days=last),
    ).add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    if issuer:
        address = name.replace(".", "").isdigit()
        alternative = x509.IPAddress(ipaddress.ip_address(name)) if address else x509.DNSName(name)
        builder = builder.add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
    return builder.sign(key, hashes.SHA256())


@dataclass
class Authority:
    """A federation's authority, its ca.crt on disk."""

    path: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def made(cls, path: Path, first: int = -9, last: int = 900) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        own = certificate("authority", first, last, None, key)
        path.write_bytes(own.public_bytes(Encoding.PEM))
        return cls(path, key, own)

    def served(self, name: str = "localhost", first: int = -5, last: int = 300) -> Path:
        """A server's certificate and key in one file."""
        issued = certificate(name, first, last, self.certificate, self.key)
        path = self.path.with_name("server.pem")
        private = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(issued.public_bytes(Encoding.PEM) + private)
        return path


@contextmanager
def server(pem: Path | None, *, off: float = 0, status: int = 200) -> Iterator[int]:
    """A web server on a free port, by TLS when it has a certificate; its clock is `off` seconds. Yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(datetime.now(UTC) + timedelta(seconds=off), usegmt=True)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        if pem:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(pem)
            running.socket = context.wrap_socket(running.socket, server_side=True)
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield running.server_address[1]
        finally:
            running.shutdown()
            thread.join()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.made(tmp_path / "ca.crt")


def site(ca: Path, port: int, host: str = "localhost") -> SiteSettings:
    return SiteSettings.model_validate(
        {
            "name": "north",
            "data": {"kind": "phantoms", "organs": ["oct"], "normal": 3, "abnormal": 3},
            "policy": "policy.yaml",
            "state": "state",
            "server": {"address": f"{host}:{port}", "ca": str(ca), "key": "node.key"},
        }
    )


def assert_line(line: Line, status: str, said: str, remedy: str) -> None:
    assert (line.status, said in line.text, remedy in line.remedy) == (status, True, True), line


def test_a_sound_server_passes_every_step(authority: Authority) -> None:
    with server(authority.served()) as port:
        here = site(authority.path, port)
        steps = [check for check in CHECKS if check.run.__module__ == network.__name__]
        assert [check.name for check in steps] == [
            "connection", "server name", "port", "clock", "authority", "certificate", "server"
        ]  # fmt: skip
        for check in steps:
            assert check.run(here).status == "ok", check.name


@pytest.mark.parametrize(
    ("host", "name", "first", "last", "status", "said", "remedy"),
    [
        ("localhost", "localhost", -5, 300, "ok", "signed by the authority in ca.crt, for localhost, until 20", ""),
        ("127.0.0.1", "127.0.0.1", -5, 300, "ok", "for 127.0.0.1", ""),
        ("localhost", "localhost", -5, 20, "warn", ": 19 days", "rotate"),
        ("localhost", "localhost", -9, -1, "fail", "has expired, or this clock is ahead", "rotate"),
        ("localhost", "localhost", 1, 9, "fail", "is not valid yet, or this clock is behind", "clock"),
        ("localhost", "fed.example.org", -5, 300, "fail", "is not for localhost", "server.address"),
        ("127.0.0.1", "localhost", -5, 300, "fail", "is not for 127.0.0.1", "server.address"),
    ],
)
def test_the_certificate_says_what_is_wrong_with_it(
    authority: Authority, host: str, name: str, first: int, last: int, status: str, said: str, remedy: str
) -> None:
    with server(authority.served(name, first, last)) as port:
        assert_line(network.certificate(site(authority.path, port, host)), status, said, remedy)


def test_another_authority_is_called_so(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority.made(tmp_path / "other" / "ca.crt")
    with server(authority.served()) as port:
        said = f"is not signed by the authority in {other.path}"
        assert_line(network.certificate(site(other.path, port)), "fail", said, "the current ca.crt")


def test_what_is_no_tls_is_called_so(authority: Authority) -> None:
    with server(None) as port:
        assert_line(network.certificate(site(authority.path, port)), "fail", "does not speak TLS", "check the port")


@pytest.mark.parametrize(
    ("first", "last", "said"), [(-9, -1, "expired on 20"), (1, 9, "or this clock is behind"), (-9, 9, "")]
)
def test_an_authority_out_of_date_is_told_from_a_server_out_of_date(
    tmp_path: Path, first: int, last: int, said: str
) -> None:
    own = Authority.made(tmp_path / "ca.crt", first, last)
    assert_line(network.authority(site(own.path, 1)), "fail" if said else "ok", said, "")


@pytest.mark.parametrize(("content", "said"), [(None, "No such file"), (b"x", "holds no certificate")])
def test_a_file_that_is_no_authority_is_called_so(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content:
        (tmp_path / "ca.crt").write_bytes(content)
    assert_line(network.authority(site(tmp_path / "ca.crt", 1)), "fail", said, "ask the coordinator for ca.crt")


@pytest.mark.parametrize(
    ("status", "said"), [(502, "SuperLink behind it does not"), (404, "/health answers 404: this is not the server")]
)
def test_a_server_that_is_not_up_is_told_from_a_wrong_one(authority: Authority, status: int, said: str) -> None:
    with server(authority.served(), status=status) as port:
        assert_line(network.healthy(site(authority.path, port)), "fail", said, "")


@pytest.mark.parametrize(
    ("off", "status", "said"),
    [
        (2, "ok", "behind the server's"),
        (-100, "warn", "100 s ahead of the server's; Flower allows 300 s"),
        (3600, "fail", "3600 s behind the server's; Flower allows 300 s"),
    ],
)
def test_the_clock_is_compared_even_when_the_certificate_looks_out_of_date(
    authority: Authority, off: float, status: str, said: str
) -> None:
    with server(authority.served(first=-9, last=-1), off=off) as port:
        line = network.clock(site(authority.path, port))
    text = line.text.replace("101 s", "100 s").replace("3599 s", "3600 s")
    assert (line.status, said in text) == (status, True), line


def test_a_closed_port_refuses_and_an_unknown_name_is_unknown(authority: Authority) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = free.getsockname()[1]
    assert_line(network.port(site(authority.path, closed)), "fail", "refuses connections", "whether the server runs")
    unknown = site(authority.path, 443, "no-such-host.invalid")
    assert_line(network.address(unknown), "fail", "no-such-host.invalid is not known here", "typing error")


def test_a_port_that_swallows_everything_is_a_firewall(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "TIMEOUT_S", 0.3)
    with ExitStack() as sockets:
        deaf = sockets.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):  # its queue is full: the next one gets no answer, as from a firewall that drops packets
            caller = sockets.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(deaf.getsockname())
        line = network.port(site(authority.path, deaf.getsockname()[1], "127.0.0.1"))
    assert_line(line, "fail", "does not answer within 0.3 s", "allow outgoing TCP to 127.0.0.1")


def test_what_hangs_on_a_step_that_failed_is_skipped_and_the_rest_is_not(authority: Authority) -> None:
    folder = authority.path.parent
    text = site(authority.path, 443, "no-such-host.invalid").model_dump_json()
    (folder / "site.yaml").write_text(text)
    (folder / "policy.yaml").write_text("privacy: off\n")
    found = {name: line.status for name, line in inspect(folder / "site.yaml")}
    assert found["server name"] == "fail"
    assert {name for name, status in found.items() if status == "skipped"} == {"port", "clock", "certificate", "server"}
    assert (found["connection"], found["authority"], found["training"]) == ("ok", "ok", "ok")
