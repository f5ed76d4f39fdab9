"""The server's kit on its host: where everything lies, its ports, and whether it can be used."""

import os
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import ValidationError

from fed_fsad.errors import ConfigError, FederationError
from fed_fsad.explain import explain
from fed_fsad.provision.authority import check_dates
from fed_fsad.provision.project import ServerAddress
from server.superlink import SuperLink

CERTIFICATES = ("server.crt", "loopback.crt", "ca.crt")
SECRETS = ("server.key", "loopback.key")
NEEDED = ("server.yaml", "nginx.conf", "federation.yaml", "app/pyproject.toml", *CERTIFICATES, *SECRETS)


@dataclass(frozen=True)
class ServerKit:
    """A server's kit that was found whole."""

    folder: Path
    address: ServerAddress

    @classmethod
    def open(cls, folder: Path) -> "ServerKit":
        """The kit in a folder. Raises ConfigError when it is none, or not whole."""
        folder = folder.resolve()
        if not (folder / "server.yaml").exists():
            raise ConfigError(f"{folder} is no server kit; give the folder `server` that `fed-fsad provision` made")
        missing = [name for name in NEEDED if not (folder / name).exists()]
        if missing:
            raise ConfigError(f"{folder / missing[0]} is missing; copy the whole kit again")
        try:
            raw = yaml.safe_load((folder / "server.yaml").read_text(encoding="utf-8"))
            return cls(folder, ServerAddress.model_validate(raw))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{folder / 'server.yaml'} cannot be read ({reason}); mend that line") from error
        except ValidationError as error:
            raise ConfigError(f"{folder / 'server.yaml'}: {explain(error, ServerAddress)}") from error

    @property
    def var(self) -> Path:
        """Logs, process ids, Flower's database: what the server writes of itself."""
        return self.folder / "var"

    @property
    def superlink(self) -> SuperLink:
        """Flower's SuperLink of this kit."""
        return SuperLink(self.folder / "flower", self.var, self.address.superlink_port, self.folder / "ca.crt")

    @property
    def options(self) -> list[str]:
        """What this kit's SuperLink is started with: certificates, nodes that prove who they are, a database."""
        files = {
            "--ssl-ca-certfile": "ca.crt",
            "--ssl-certfile": "loopback.crt",
            "--ssl-keyfile": "loopback.key",
            "--database": "var/state.db",
        }
        paths = [part for option, name in files.items() for part in (option, str(self.folder / name))]
        return ["--enable-supernode-auth", *paths]

    @property
    def running(self) -> SuperLink:
        """The SuperLink, which must run. Raises FederationError when it does not."""
        if self.superlink.daemon.pid() is None:
            raise FederationError(f"the server does not run; start it with `fed-fsad server start {self.folder}`")
        return self.superlink

    def check(self) -> None:
        """Raise ConfigError when a certificate is not valid today, or others may read a key."""
        for name in CERTIFICATES:
            check_dates(self.folder / name)
        for name in SECRETS:
            path = self.folder / name
            if not os.access(path, os.R_OK):
                raise ConfigError(f"{path}: permission denied; start the server as the user who owns the kit")
            if path.stat().st_mode & 0o077:
                raise ConfigError(f"{path} can be read by other users; close it with: chmod 600 {path}")
