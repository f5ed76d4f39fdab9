"""What an authority issued and revoked, one line each, never changed afterwards."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives import hashes

from fed_fsad.durable import append
from fed_fsad.provision.authority import read_certificates
from fed_fsad.provision.keys import fingerprint

RECORD = "issued.jsonl"


def note(authority: Path, what: Literal["authority", "certificate", "key", "revoked"], name: str, file: Path) -> None:
    """Write down that a certificate or a public key was issued, or a key revoked."""
    line = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "what": what, "name": name}
    if file.suffix == ".pub":
        line["fingerprint"] = fingerprint(file)
    else:
        line["fingerprint"] = certificate_fingerprint(file)
        line["until"] = read_certificates(file)[0].not_valid_after_utc.isoformat()
    with (authority / RECORD).open("ab") as record:
        append(record, (json.dumps(line) + "\n").encode())


def issued(authority: Path) -> list[dict[str, Any]]:
    """All lines, oldest first."""
    return [json.loads(line) for line in (authority / RECORD).read_text(encoding="utf-8").splitlines()]


def certificate_fingerprint(path: Path) -> str:
    """SHA-256 of a file's first certificate, as `openssl x509 -fingerprint` shows it."""
    return read_certificates(path)[0].fingerprint(hashes.SHA256()).hex(":").upper()
