"""All kits of a project at once."""

import shutil
from pathlib import Path

from fed_fsad.durable import replace
from fed_fsad.errors import ConfigError
from fed_fsad.provision.authority import make_authority
from fed_fsad.provision.contents import write_server_kit
from fed_fsad.provision.kits import FEDERATION, Kits
from fed_fsad.provision.project import Project
from fed_fsad.provision.record import note
from fed_fsad.provision.trust import renew_certificates


def make(project: Project, out: Path) -> Kits:
    """The kits, in a folder that must not exist yet or be empty. Raises ConfigError.

    They are made beside it and moved at the end: there are all of them or none.
    """
    federation = project.federation_yaml()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty, and kits overwrite nothing; choose another --out, or use add-site")
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        kits = Kits(part, project.model_copy(update={"sites": ()}))
        make_authority(kits.authority, project.name, project.authority_days, project.curve)
        note(kits.authority, "authority", project.name, kits.authority / "ca.crt")
        replace(kits.server / FEDERATION, federation.encode())
        kits.give_trust(kits.server)
        renew_certificates(kits)
        write_server_kit(kits.server, project)
        for folder in (kits.authority, kits.server):
            folder.chmod(0o700)
        for site in project.sites:
            kits.add(site.model_dump(mode="json"))
        part.replace(out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror}); choose another --out") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return Kits.open(out)
