"""site.yaml: everything a hospital says about itself. It stays at the hospital."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError, field_validator

from fed_fsad.data.settings import FolderData, Name, PhantomRehearsal, Role, Settings
from fed_fsad.errors import ConfigError
from fed_fsad.explain import explain
from fed_fsad.machine import MachineSettings


class Connection(Settings):
    """How the site reaches the server. The site dials out; nobody ever dials in."""

    address: str = Field(pattern=r"^[^\s:/]+:\d{1,5}$", description="HOST:PORT of the server")
    ca: Path = Field(description="ca.crt: the certificate of the authority that signed the server's")
    key: Path = Field(description="node.key: this site's private key; it never leaves the site")

    @field_validator("address")
    @classmethod
    def _port_exists(cls, address: str) -> str:
        if not 1 <= int(address.rpartition(":")[2]) <= 65535:
            raise ValueError(f"there is no port {address.rpartition(':')[2]}; write one between 1 and 65535")
        return address

    @property
    def host(self) -> str:
        """The server's host name or IP address."""
        return self.address.rpartition(":")[0]

    @property
    def port(self) -> int:
        """The server's public port."""
        return int(self.address.rpartition(":")[2])


class SiteSettings(Settings):
    """site.yaml of a real hospital; every path in it that is not absolute is relative to it."""

    name: str = Field(pattern=Name, description="the site's name in the federation")
    role: Role = Field("train", description="predict-only: never trains, sends figures of its own evaluation only")
    data: Annotated[FolderData | PhantomRehearsal, Field(discriminator="kind")]
    policy: Path = Field(description="policy.yaml")
    state: Path = Field(description="folder for the ledger, released updates, the site's log and its process id")
    server: Connection | None = Field(None, description="where the server is; needed to check and start the site")
    machine: MachineSettings = Field(MachineSettings(), description="device, precision and feature cache of this host")


def connection(site: SiteSettings) -> Connection:
    """How the site reaches its server. Raises ConfigError when site.yaml does not say."""
    if site.server is None:
        raise ConfigError(f"site.yaml of {site.name} names no server; add the block server: with address, ca and key")
    return site.server


def load_settings(path: Path) -> SiteSettings:
    """site.yaml with all its paths made absolute. Raises ConfigError, one sentence that names the key."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        settings = SiteSettings.model_validate(raw)
    except PermissionError as error:
        raise ConfigError(f"{path}: permission denied; give the user of this program the right to read it") from error
    except OSError as error:
        raise ConfigError(f"{path}: site.yaml cannot be read ({error.strerror}); check site-config") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())}); mend that line") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, SiteSettings)}") from error
    return _absolute(settings, path.resolve().parent)


def _absolute(settings: SiteSettings, base: Path) -> SiteSettings:
    def at(path: Path) -> Path:
        return (base / path.expanduser()).resolve()

    data, server = settings.data, settings.server
    if isinstance(data, FolderData):
        data = data.model_copy(update={"root": at(data.root)})
    if server is not None:
        server = server.model_copy(update={"ca": at(server.ca), "key": at(server.key)})
    own = {"data": data, "server": server, "policy": at(settings.policy), "state": at(settings.state)}
    return settings.model_copy(update=own)
