"""Sites that must be refused, each for a reason of its own, made with tools of the system, not with our own."""

import datetime
import ipaddress
import re
import shutil
import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.deployment.harness import Deployment


def copied_site(deployment: Deployment, name: str) -> Path:
    """The kit of north once more, under another folder, without what north keeps in it; its site.yaml."""
    folder = deployment.kits / name
    shutil.copytree(deployment.kits / "north", folder, ignore=shutil.ignore_patterns("state"))
    return folder / "site.yaml"


def with_unregistered_key(deployment: Deployment) -> Path:
    """A site whose key the coordinator has never seen."""
    site = copied_site(deployment, "unregistered")
    for name in ("node.key", "node.pub"):
        (site.parent / name).unlink()
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", "node.key"], cwd=site.parent, check=True
    )
    return site


def with_wrong_authority(deployment: Deployment) -> Path:
    """A site that trusts another authority than the one that signed the server's certificate."""
    site = copied_site(deployment, "wrong-ca")
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout other.key -out ca.crt -days 9"
    )
    subprocess.run(
        [*command.split(), "-subj", "/CN=another authority"], cwd=site.parent, check=True, capture_output=True
    )
    return site


def with_expired_server(deployment: Deployment, port: int) -> Path:
    """A site that reaches the server through a second nginx on `port`, whose certificate expired yesterday.

    Its configuration is written into the server's kit; who calls this starts it.
    """
    site = copied_site(deployment, "expired")
    settings = site.read_text(encoding="utf-8")
    site.write_text(settings.replace(f":{deployment.port}", f":{port}"), encoding="utf-8")
    _expired_certificate(deployment.kits / "authority", deployment.server)
    conf = (deployment.server / "nginx.conf").read_text(encoding="utf-8")
    conf = conf.replace("server.crt", "expired.crt").replace("server.key", "expired.key")
    conf = conf.replace(f"listen {deployment.port} ", f"listen {port} ")
    (deployment.server / "expired.conf").write_text(re.sub(r"\bvar/(?=[a-z-]+\.(pid|log))", "var/expired-", conf))
    return site


def _expired_certificate(authority: Path, server: Path) -> None:
    signer = x509.load_pem_x509_certificate((authority / "ca.crt").read_bytes())
    secret = serialization.load_pem_private_key((authority / "ca.key").read_bytes(), None)
    assert isinstance(secret, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")]))
        .issuer_name(signer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=9))
        .not_valid_after(now - datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(secret, hashes.SHA256())
    )
    (server / "expired.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    secret_bytes = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    (server / "expired.key").write_bytes(secret_bytes)
