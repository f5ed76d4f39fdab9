"""Sites come and go, keys and certificates are renewed: what is trusted changes, nothing is lost or done by halves."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from clients.settings import load_settings
from fed_fsad.config import load_config
from fed_fsad.errors import ConfigError
from fed_fsad.provision.authority import read_certificates
from fed_fsad.provision.keys import fingerprint, make_node_keys
from fed_fsad.provision.kits import Kits
from fed_fsad.provision.record import issued
from fed_fsad.provision.trust import end_overlap, renew_certificates, replace_authority
from tests.provision.conftest import PROJECT, made


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("**/*") if path.is_file()}


def hospitals(kits: Kits) -> list[tuple[str, str]]:
    return [(site.name, site.role) for site in load_config(kits.server / "federation.yaml").hospitals]


def history(kits: Kits) -> list[tuple[str, str]]:
    return [(line["what"], line["name"]) for line in issued(kits.authority)]


def public(folder: Path) -> Path:
    """A public key that a site made itself."""
    folder.mkdir(exist_ok=True)
    return make_node_keys(folder / "node.key")


def trusts(authority: Path, certificate: Path) -> bool:
    """What OpenSSL says of a server's certificate."""
    command = ["openssl", "verify", "-CAfile", str(authority), str(certificate)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


# ---- making


def test_kits_are_never_made_over_others(kits: Kits) -> None:
    before = contents(kits.folder)
    with pytest.raises(ConfigError, match="is not empty, and kits overwrite nothing"):
        made(kits.folder.parent)
    assert contents(kits.folder) == before


def test_a_failure_in_the_middle_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fed_fsad.provision.kits.write_site_kit", full)
    with pytest.raises(ConfigError, match=r"cannot be written \(No space left on device\)"):
        made(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["project.yaml"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "kits").mkdir()
    assert made(tmp_path).project.name == "rehearsal"


def test_no_two_projects_share_a_secret(tmp_path: Path) -> None:
    one, two = made(tmp_path / "one").folder, made(tmp_path / "two").folder
    for path in one.glob("**/*.key"):
        assert path.read_bytes() != (two / path.relative_to(one)).read_bytes()


def test_a_folder_without_kits_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no kits with their authority"):
        Kits.open(tmp_path)


# ---- sites


def test_a_site_is_added_like_those_before_it(kits: Kits) -> None:
    before = contents(kits.folder)
    kits.add({"name": "east", "role": "predict-only"})
    assert hospitals(kits)[-1] == ("east", "predict-only")
    assert Kits.open(kits.folder).site("east").role == "predict-only"
    east = load_settings(kits.folder / "east" / "site.yaml")
    assert (east.name, east.role) == ("east", "predict-only")
    assert fingerprint(kits.public_key("east")) == fingerprint(kits.folder / "east" / "node.pub")
    assert history(kits)[-1] == ("key", "east")
    after = contents(kits.folder)
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"authority/issued.jsonl", "authority/project.yaml", "server/federation.yaml"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("north", "two sites are called 'north'"),
        ("NORTH", "two sites are called 'north'"),
        ("authority", "cannot be called 'authority'"),
        ("a/b", r"sites\.3\.name: "),
        ("old", "old exists already, and kits overwrite nothing"),
    ],
)
def test_a_name_that_is_taken_or_impossible_changes_nothing(kits: Kits, name: str, said: str) -> None:
    (kits.folder / "old").mkdir()
    before = contents(kits.folder)
    with pytest.raises(ConfigError, match=said):
        kits.add({"name": name})
    assert contents(kits.folder) == before


def test_a_federation_file_that_was_edited_keeps_its_lines_and_one_that_was_rewritten_is_left_alone(kits: Kits) -> None:
    path = kits.server / "federation.yaml"
    text = path.read_text().replace("rounds: 2", "rounds: 3  # more") + "\narms: []  # none\n"
    path.write_text(text)
    kits.add({"name": "east"})
    kits.revoke("east")
    assert path.read_text() == text
    path.write_text(re.sub(r"  - \{name: (.*), role: (.*)\}", r"  - name: \1", text))
    with pytest.raises(ConfigError, match="add far by hand"):
        kits.add({"name": "far"})
    assert not (kits.folder / "far").exists()


def test_a_site_that_makes_its_own_key_sends_only_the_public_half(kits: Kits, tmp_path: Path) -> None:
    assert not kits.public_key("south").exists()
    kits.accept("south", public(tmp_path / "site"))
    assert fingerprint(kits.public_key("south")) == fingerprint(tmp_path / "site" / "node.pub")
    assert not list((kits.folder / "south").glob("node.*"))
    with pytest.raises(ConfigError, match=r"south has a key already; .*rotate .* site south --public-key"):
        kits.accept("south", public(tmp_path / "other"))
    with pytest.raises(ConfigError, match=r"there is no site 'sout' .*; did you mean 'south'"):
        kits.accept("sout", public(tmp_path / "third"))


def test_a_key_belongs_to_one_site_and_never_comes_back(kits: Kits, tmp_path: Path) -> None:
    norths = kits.folder / "north" / "node.pub"
    with pytest.raises(ConfigError, match="this key is that of north; every site needs a key of its own"):
        kits.accept("south", norths)
    kits.revoke("north")
    with pytest.raises(ConfigError, match="this key was revoked"):
        kits.accept("south", norths)
    before = contents(kits.folder)
    with pytest.raises(ConfigError, match="this key was revoked"):
        kits.add({"name": "east"}, norths)
    with pytest.raises(ConfigError, match="is a private key, which must never leave its site"):
        kits.accept("south", kits.folder / "west" / "node.key")
    assert contents(kits.folder) == before


def test_a_revoked_site_is_out_and_on_record(kits: Kits) -> None:
    key = kits.public_key("north").read_bytes()
    kits.revoke("north")
    assert [site.name for site in Kits.open(kits.folder).project.sites] == ["south", "west"]
    assert hospitals(kits) == [("south", "train"), ("west", "predict-only")]
    assert [path.name for path in (kits.server / "sites").glob("*.pub")] == ["west.pub"]
    assert (kits.server / "sites" / "revoked" / "north.1.pub").read_bytes() == key
    assert history(kits)[-1] == ("revoked", "north")
    with pytest.raises(ConfigError, match="there is no site 'north'"):
        kits.revoke("north")


def test_the_last_site_that_trains_cannot_be_revoked(kits: Kits, tmp_path: Path) -> None:
    kits.revoke("north")
    before = contents(kits.folder)
    with pytest.raises(ConfigError, match="every hospital is predict-only"):
        kits.revoke("south")
    assert contents(kits.folder) == before
    alone = made(tmp_path / "alone", re.sub(r"  - \{name: (south|west).*\n", "", PROJECT))
    with pytest.raises(ConfigError, match="north is the last site"):
        alone.revoke("north")


def test_a_renewed_key_takes_the_place_of_the_old_one(kits: Kits, tmp_path: Path) -> None:
    old = kits.public_key("north").read_bytes()
    kits.renew_key("north")
    assert kits.public_key("north").read_bytes() != old
    assert fingerprint(kits.public_key("north")) == fingerprint(kits.folder / "north" / "node.pub")
    assert (kits.server / "sites" / "revoked" / "north.1.pub").read_bytes() == old
    kits.renew_key("north", public(tmp_path / "site"))
    assert fingerprint(kits.public_key("north")) == fingerprint(tmp_path / "site" / "node.pub")
    assert len(list((kits.server / "sites" / "revoked").iterdir())) == 2
    assert history(kits)[-4:] == [("revoked", "north"), ("key", "north")] * 2
    with pytest.raises(ConfigError, match="south makes its own keys; ask it for a new one"):
        kits.renew_key("south")


# ---- certificates


def test_the_kits_trust_the_servers_certificates_and_no_others(kits: Kits, tmp_path: Path) -> None:
    other = made(tmp_path / "other")
    for site in ("north", "south", "west", "server"):
        for name in ("server.crt", "loopback.crt"):
            assert trusts(kits.folder / site / "ca.crt", kits.server / name)
            assert not trusts(kits.folder / site / "ca.crt", other.server / name)


def test_new_server_certificates_are_of_the_same_authority(kits: Kits) -> None:
    before = contents(kits.server)
    renew_certificates(kits)
    after = contents(kits.server)
    changed = {"server.crt", "server.key", "loopback.crt", "loopback.key"}
    assert {name for name in before if after[name] != before[name]} == changed
    assert (kits.server / "server.key").stat().st_mode & 0o777 == 0o600
    assert trusts(kits.folder / "north" / "ca.crt", kits.server / "server.crt")
    assert history(kits)[-2:] == [("certificate", "server"), ("certificate", "loopback")]


def test_an_authority_is_replaced_without_a_moment_in_which_a_site_trusts_nobody(kits: Kits) -> None:
    site, old = kits.folder / "north" / "ca.crt", (kits.folder / "north" / "ca.crt").read_bytes()
    certificate = kits.folder / "old-server.crt"
    shutil.copy(kits.server / "server.crt", certificate)
    with pytest.raises(ConfigError, match="no authority is being replaced"):
        end_overlap(kits)
    replace_authority(kits)
    assert len(read_certificates(site)) == 2
    assert trusts(site, kits.server / "server.crt"), "the server still shows its old certificate"
    with pytest.raises(ConfigError, match="the authority is being replaced; end that"):
        replace_authority(kits)
    with pytest.raises(ConfigError, match=r"server\.crt is of the old authority; first renew it"):
        end_overlap(kits)
    renew_certificates(kits)
    assert trusts(site, kits.server / "server.crt"), "sites that have the new file trust the new one"
    assert trusts(site, certificate)
    kits.add({"name": "east"})
    assert (kits.folder / "east" / "ca.crt").read_bytes() == site.read_bytes()
    end_overlap(kits)
    assert len(read_certificates(site)) == 1
    assert site.read_bytes() != old
    assert trusts(site, kits.server / "server.crt")
    assert not trusts(site, certificate)
    assert not (kits.authority / "previous").exists()


def test_the_old_authoritys_key_is_gone(kits: Kits) -> None:
    old = (kits.authority / "ca.key").read_bytes()
    replace_authority(kits)
    assert old not in contents(kits.folder).values()
    assert os.stat(kits.authority / "ca.key").st_mode & 0o777 == 0o600
