"""Key pairs: what Flower and OpenSSH take, closed to others, never overwritten."""

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from flwr.cli.supernode.register import try_load_public_key

from fed_fsad.errors import ConfigError
from fed_fsad.provision.keys import fingerprint, make_node_keys, public_line


def test_a_pair_fits_together_and_only_its_owner_reads_the_private_half(tmp_path: Path) -> None:
    public = make_node_keys(tmp_path / "node.key")
    assert public == tmp_path / "node.pub"
    assert (tmp_path / "node.key").stat().st_mode & 0o777 == 0o600
    private = serialization.load_ssh_private_key((tmp_path / "node.key").read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.curve.name == "secp384r1"
    form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    assert private.public_key().public_bytes(*form) == public_line(public)


def test_flower_takes_the_public_half(tmp_path: Path) -> None:
    assert b"PUBLIC KEY" in try_load_public_key(make_node_keys(tmp_path / "node.key"))


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="OpenSSH is not installed")
def test_the_fingerprint_is_the_one_that_openssh_shows(tmp_path: Path) -> None:
    public = make_node_keys(tmp_path / "node.key")
    shown = subprocess.run(["ssh-keygen", "-l", "-f", str(public)], capture_output=True, text=True, check=True)
    assert shown.stdout.split()[1] == fingerprint(public)


@pytest.mark.parametrize("name", ["node.key", "node.pub"])
def test_nothing_is_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(ConfigError, match=f"{name} exists already"):
        make_node_keys(tmp_path / "node.key")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["precious"]


def test_what_is_no_public_key_of_a_site_is_refused(tmp_path: Path) -> None:
    make_node_keys(tmp_path / "node.key")
    with pytest.raises(ConfigError, match="is a private key, which must never leave its site"):
        public_line(tmp_path / "node.key")
    (tmp_path / "text.pub").write_text("hello")
    with pytest.raises(ConfigError, match="holds no OpenSSH public key"):
        public_line(tmp_path / "text.pub")
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (tmp_path / "other.pub").write_bytes(other.public_bytes(*form))
    with pytest.raises(ConfigError, match="ECDSA keys on P-256, P-384 or P-521 only"):
        public_line(tmp_path / "other.pub")
    with pytest.raises(ConfigError, match=r"gone\.pub: the public key cannot be read"):
        public_line(tmp_path / "gone.pub")
