"""The federation's own certificate authority: a root that the sites trust, and the server certificates it signs."""

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fed_fsad.durable import replace
from fed_fsad.errors import ConfigError
from fed_fsad.provision.secret import write_secret

CURVES: dict[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1}
CLOCKS = timedelta(hours=1)
"""How far back a certificate's validity starts, for hosts whose clocks are behind."""
NO_USE = dict.fromkeys(
    ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
     "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    False,
)  # fmt: skip


def make_authority(folder: Path, federation: str, days: int, curve: str) -> x509.Certificate:
    """Write ca.key (mode 0600) and ca.crt of a new authority. Raises ConfigError when there is one already."""
    key = ec.generate_private_key(CURVES[curve]())
    name = _name(f"{federation} authority")
    certificate = (
        _unsigned(name, name, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{**NO_USE, "key_cert_sign": True, "crl_sign": True}), critical=True)
        .sign(key, hashes.SHA384())
    )
    write_secret(folder / "ca.key", _pem(key))
    replace(folder / "ca.crt", certificate.public_bytes(serialization.Encoding.PEM))
    return certificate


def issue(authority: Path, names: list[str], days: int, curve: str) -> tuple[bytes, bytes]:
    """(certificate, private key), both PEM, of a TLS server that is reached as `names`: host names or IP addresses.

    Raises ConfigError when the authority in the folder cannot be used.
    """
    issuer, issuer_key = _load(authority)
    key = ec.generate_private_key(CURVES[curve]())
    usage = x509.KeyUsage(**{**NO_USE, "digital_signature": True})
    issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    certificate = (
        _unsigned(_name(names[0]), issuer.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_alternative(name) for name in names]), critical=False)
        .add_extension(issuer_id, critical=False)
        .sign(issuer_key, hashes.SHA384())
    )
    if certificate.not_valid_after_utc > issuer.not_valid_after_utc:
        raise ConfigError("the certificate would outlive its authority; rotate the authority first, or state less days")
    return certificate.public_bytes(serialization.Encoding.PEM), _pem(key)


def read_certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a PEM file. Raises ConfigError when there is none."""
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} holds no certificate that can be read; restore it, or provision anew") from error


def check_dates(path: Path) -> None:
    """Raise ConfigError when the first certificate of a file is not valid today, with the date."""
    certificate, now = read_certificates(path)[0], datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        until = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        raise ConfigError(f"{path} has expired on {until}; renew it with `fed-fsad provision rotate KITS server`")
    if now < certificate.not_valid_before_utc:
        since = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        raise ConfigError(f"{path} is valid from {since} only; correct the clock of this host")


def signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` signed the certificate."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError):
        return False
    return True


def _load(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{folder / 'ca.key'} cannot be read; only the coordinator's copy can sign") from error
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    check_dates(folder / "ca.crt")
    return read_certificates(folder / "ca.crt")[0], key


def _unsigned(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
