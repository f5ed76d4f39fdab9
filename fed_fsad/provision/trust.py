"""Whom a federation trusts over time: the server's certificates renewed, the authority replaced without a gap."""

import shutil

from fed_fsad.durable import replace
from fed_fsad.errors import ConfigError
from fed_fsad.provision.authority import issue, make_authority, read_certificates, signed
from fed_fsad.provision.kits import Kits
from fed_fsad.provision.record import note
from fed_fsad.provision.secret import write_secret

LOOPBACK = ["localhost", "127.0.0.1"]


def renew_certificates(kits: Kits) -> None:
    """New certificates for the server, from the authority of today. Raises ConfigError."""
    project = kits.project
    for name, names in (("server", [project.server.address]), ("loopback", LOOPBACK)):
        certificate, key = issue(kits.authority, names, project.days, project.curve)
        (kits.server / f"{name}.key").unlink(missing_ok=True)
        write_secret(kits.server / f"{name}.key", key)
        replace(kits.server / f"{name}.crt", certificate)
        note(kits.authority, "certificate", name, kits.server / f"{name}.crt")


def replace_authority(kits: Kits) -> None:
    """A new authority; the old one stays trusted until `end_overlap`. Raises ConfigError while it is so already."""
    previous, successor = kits.authority / "previous", kits.authority / "next"
    if previous.exists():
        raise ConfigError(
            f"the authority is being replaced; end that with `fed-fsad provision rotate {kits.folder} finish`"
        )
    shutil.rmtree(successor, ignore_errors=True)
    make_authority(successor, kits.project.name, kits.project.authority_days, kits.project.curve)
    previous.mkdir()
    (kits.authority / "ca.crt").rename(previous / "ca.crt")
    for name in ("ca.key", "ca.crt"):
        (successor / name).replace(kits.authority / name)
    successor.rmdir()
    note(kits.authority, "authority", kits.project.name, kits.authority / "ca.crt")
    _tell_everybody(kits)


def end_overlap(kits: Kits) -> None:
    """End the trust in the old authority. Raises ConfigError while the server still uses its certificates."""
    previous, command = kits.authority / "previous", f"fed-fsad provision rotate {kits.folder}"
    if not previous.exists():
        raise ConfigError(f"no authority is being replaced; begin with `{command} authority`")
    current = read_certificates(kits.authority / "ca.crt")[0]
    for name in ("server.crt", "loopback.crt"):
        if not signed(read_certificates(kits.server / name)[0], current):
            raise ConfigError(f"{name} is of the old authority; first renew it with `{command} server`")
    shutil.rmtree(previous)
    _tell_everybody(kits)


def _tell_everybody(kits: Kits) -> None:
    for folder in (kits.server, *(kits.folder / site.name for site in kits.project.sites)):
        kits.give_trust(folder)
