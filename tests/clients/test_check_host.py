"""`site check` and the host: rights that are missing, a disk that is full, a ledger that is in use."""

import fcntl
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients.check import Line
from fed_fsad.privacy.account import spent_so_far
from tests.clients.test_check import _imported, lines, site, spend, tried

__all__ = ["_imported", "site", "tried"]

NOBODY = 65534


@contextmanager
def ordinary_user() -> Iterator[None]:
    """As somebody whom file permissions bind; root, whom they do not, becomes nobody for a while."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def deny_image(site: Path) -> None:
    (site / "images/train/mass/000.png").chmod(0)


def deny_class(site: Path) -> None:
    (site / "images/train/mass").chmod(0)


def deny_listing_only(site: Path) -> None:
    (site / "images/train/mass").chmod(0o744)


def deny_policy(site: Path) -> None:
    (site / "policy.yaml").chmod(0)


def deny_settings(site: Path) -> None:
    (site / "site.yaml").chmod(0)


def deny_ledger(site: Path) -> None:
    spend(site, 0.5)
    (site / "state").chmod(0o777)
    (site / "state/ledger.jsonl").chmod(0)


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        (deny_image, "images"),
        (deny_class, "image list"),
        (deny_listing_only, "image list"),
        (deny_policy, "policy"),
        (deny_settings, "site.yaml"),
        (deny_ledger, "ledger"),
        (lambda site: site.chmod(0o555), "state folder"),
        (lambda site: (site / "node.key").chmod(0), "node key"),
    ],
)
def test_a_missing_right_is_called_so_and_nothing_is_called_corrupt(
    site: Path, damage: Callable[[Path], None], check: str
) -> None:
    site.chmod(0o777)
    (site / "node.key").chmod(0o644)
    damage(site)
    with ordinary_user():
        found = lines(site)
    assert (found[check].status, "permission denied" in found[check].text.lower()) == ("fail", True), found[check]
    for line in found.values():
        assert not any(word in line.text for word in ("corrupt", "damaged", "not valid", "cut short")), line
    for folder in (site, site / "images/train/mass"):
        folder.chmod(0o755)


def test_a_disk_that_is_really_full_is_called_full(site: Path) -> None:
    (site / "state").mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(site / "state")], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk can only be made by root")
    try:
        with pytest.raises(OSError, match="No space left"):
            (site / "state/filler").write_bytes(bytes(2 << 20))
        found = lines(site)
        assert (found["disk"].status, found["disk"].text[:6]) == ("fail", "0.0 GB")
        assert (found["state folder"].status, "No space left on device" in found["state folder"].text) == ("fail", True)
    finally:
        subprocess.run(["umount", str(site / "state")], check=True)


def test_little_memory_and_old_packages_are_said(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.check.host._available_memory", lambda: 1 << 29)
    monkeypatch.setattr("clients.check.host.metadata.requires", lambda name: ["numpy", "flwr>=99", "x; extra == 'y'"])
    found = lines(site)
    assert found["memory"] == Line("fail", "0.5 GB of memory free", found["memory"].remedy)
    assert "end other programs" in found["memory"].remedy
    assert found["versions"].text.endswith("is installed and fed-fsad needs flwr>=99")
    assert found["versions"].remedy == "pip install 'flwr>=99'"


def test_looking_at_the_ledger_neither_waits_for_it_nor_changes_it(site: Path) -> None:
    spend(site, 0.5)
    path = site / "state/ledger.jsonl"
    path.write_bytes(path.read_bytes() + b'{"kind": "charge", "torn')
    before = path.read_bytes()
    with path.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert spent_so_far(site / "state") == pytest.approx(4, rel=1e-3)
    assert path.read_bytes() == before


def test_a_predict_only_site_must_be_allowed_to_send_its_figures(site: Path) -> None:
    (site / "site.yaml").write_text((site / "site.yaml").read_text() + "role: predict-only\n")
    found = lines(site)["training"]
    assert (found.status, "release_metrics: true" in found.remedy) == ("fail", True)
    (site / "policy.yaml").write_text("release_metrics: true\n")
    assert lines(site)["training"].text == "22 images to draw supports from, 20 to evaluate on; nothing is trained"
