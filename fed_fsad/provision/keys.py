"""A site's key pair: ECDSA on P-384 in OpenSSH's format, as Flower's SuperNode and SuperLink expect it."""

import base64
import hashlib
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fed_fsad.durable import replace
from fed_fsad.errors import ConfigError
from fed_fsad.provision.secret import write_secret

CURVES = ("secp256r1", "secp384r1", "secp521r1")


def make_node_keys(private: Path) -> Path:
    """Write a new key pair: `private` (mode 0600) and beside it the public half as .pub, whose path is returned.

    Raises ConfigError when one of the two is there already.
    """
    public = private.with_suffix(".pub")
    if public.exists():
        raise ConfigError(f"{public} exists already and is not overwritten; move it away first")
    key = ec.generate_private_key(ec.SECP384R1())
    encoding, form = serialization.Encoding, serialization.PrivateFormat
    secret = key.private_bytes(encoding.PEM, form.OpenSSH, serialization.NoEncryption())
    write_secret(private, secret)
    line = key.public_key().public_bytes(encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    replace(public, line + b"\n")
    return public


def public_line(path: Path) -> bytes:
    """A public key as one line without its comment. Raises ConfigError when the file holds anything else."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: the public key cannot be read ({error.strerror}); check the path") from error
    if b"PRIVATE KEY" in content:
        raise ConfigError(f"{path} is a private key, which must never leave its site; take the .pub file beside it")
    try:
        key = serialization.load_ssh_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} holds no OpenSSH public key; take the node.pub that the site made") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise ConfigError(f"{path}: Flower takes ECDSA keys on P-256, P-384 or P-521 only; make one with keygen")
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)


def fingerprint(public: Path) -> str:
    """What `ssh-keygen -l` shows of a public key, to be compared on the telephone. Raises ConfigError."""
    digest = hashlib.sha256(base64.b64decode(public_line(public).split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
