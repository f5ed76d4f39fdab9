"""Certificates, read by OpenSSL: chain, names, purposes, dates."""

import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from fed_fsad.errors import ConfigError
from fed_fsad.provision.authority import check_dates, issue, make_authority, read_certificates, signed

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="OpenSSL's command is not installed")


def openssl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)


def issued(folder: Path, names: list[str], days: int = 30, curve: str = "P-384") -> Path:
    certificate, key = issue(folder, names, days, curve)
    (folder / "server.crt").write_bytes(certificate)
    (folder / "server.key").write_bytes(key)
    return folder / "server.crt"


def verified(folder: Path, *more: str) -> bool:
    command = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(folder / "ca.crt")]
    return openssl(*command, *more, str(folder / "server.crt")).returncode == 0


@pytest.mark.parametrize("curve", ["P-256", "P-384"])
def test_the_chain_holds_for_the_names_in_the_certificate_and_no_others(tmp_path: Path, curve: str) -> None:
    make_authority(tmp_path, "chest", 100, curve)
    path = issued(tmp_path, ["fed.example.org", "192.0.2.7"], curve=curve)
    assert verified(tmp_path, "-verify_hostname", "fed.example.org")
    assert verified(tmp_path, "-verify_ip", "192.0.2.7")
    assert not verified(tmp_path, "-verify_hostname", "evil.example.org")
    assert not verified(tmp_path, "-verify_ip", "192.0.2.8")
    text = openssl("x509", "-in", str(path), "-noout", "-text").stdout
    assert f"ASN1 OID: {'prime256v1' if curve == 'P-256' else 'secp384r1'}" in text
    assert "TLS Web Server Authentication" in text
    assert "CA:FALSE" in text
    public = openssl("x509", "-in", str(path), "-noout", "-pubkey").stdout
    assert openssl("pkey", "-in", str(tmp_path / "server.key"), "-pubout").stdout == public


def test_the_authority_signs_servers_and_no_other_authority(tmp_path: Path) -> None:
    make_authority(tmp_path, "chest", 100, "P-384")
    text = openssl("x509", "-in", str(tmp_path / "ca.crt"), "-noout", "-text").stdout
    assert "CA:TRUE, pathlen:0" in text
    assert "Certificate Sign, CRL Sign" in text
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match=r"ca\.key exists already and is not overwritten"):
        make_authority(tmp_path, "chest", 100, "P-384")


def test_another_authority_of_the_same_name_is_not_trusted(tmp_path: Path) -> None:
    for name in ("mine", "theirs"):
        make_authority(tmp_path / name, "chest", 100, "P-384")
        issued(tmp_path / name, ["fed.example.org"])
    mine, theirs = (read_certificates(tmp_path / name / "ca.crt")[0] for name in ("mine", "theirs"))
    server = read_certificates(tmp_path / "mine" / "server.crt")[0]
    assert signed(server, mine)
    assert not signed(server, theirs)
    (tmp_path / "mine" / "ca.crt").write_bytes((tmp_path / "theirs" / "ca.crt").read_bytes())
    assert not verified(tmp_path / "mine")


def test_it_is_valid_from_an_hour_ago_for_so_many_days(tmp_path: Path) -> None:
    make_authority(tmp_path, "chest", 100, "P-384")
    certificate = read_certificates(issued(tmp_path, ["fed.example.org"]))[0]
    now, second = datetime.now(UTC), timedelta(seconds=60)
    assert abs(certificate.not_valid_before_utc - (now - timedelta(hours=1))) < second
    assert abs(certificate.not_valid_after_utc - (now + timedelta(days=30))) < second
    check_dates(tmp_path / "server.crt")


def test_an_expired_one_is_named_with_its_date_and_a_remedy(tmp_path: Path) -> None:
    make_authority(tmp_path, "chest", 100, "P-384")
    path = issued(tmp_path, ["fed.example.org"], days=0)
    today = f"{read_certificates(path)[0].not_valid_after_utc:%Y-%m-%d}"
    with pytest.raises(ConfigError, match=rf"server\.crt has expired on {today} .* provision rotate"):
        check_dates(path)


def test_one_of_tomorrow_points_at_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_authority(tmp_path, "chest", 100, "P-384")
    path = issued(tmp_path, ["fed.example.org"])

    yesterday = datetime.now(UTC) - timedelta(days=1)
    monkeypatch.setattr("fed_fsad.provision.authority.datetime", SimpleNamespace(now=lambda zone: yesterday))
    with pytest.raises(ConfigError, match="correct the clock of this host"):
        check_dates(path)


def test_nothing_outlives_its_authority(tmp_path: Path) -> None:
    make_authority(tmp_path, "chest", 10, "P-384")
    with pytest.raises(ConfigError, match="would outlive its authority"):
        issue(tmp_path, ["fed.example.org"], 11, "P-384")


@pytest.mark.parametrize("content", [None, b"", b"hello"])
def test_what_cannot_sign_or_be_read_is_one_sentence(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        for name in ("ca.key", "ca.crt"):
            (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=r"ca\.key cannot be read; only the coordinator's copy can sign"):
        issue(tmp_path, ["fed.example.org"], 1, "P-384")
    with pytest.raises(ConfigError, match=r"ca\.crt holds no certificate that can be read"):
        read_certificates(tmp_path / "ca.crt")
