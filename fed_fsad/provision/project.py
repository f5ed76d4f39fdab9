"""project.yaml: the server, the sites and the run that kits are made for."""

import re
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from fed_fsad.data.settings import Name, PhantomHolding, Role, Settings
from fed_fsad.errors import ConfigError
from fed_fsad.explain import explain

RESERVED = ("authority", "server")
HOSPITAL = "  - {name: "
"""How a line of federation.yaml starts that names a site."""


class ServerAddress(Settings):
    """Where the server is: what sites dial, and the port on which Flower listens behind the proxy."""

    address: str = Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$", description="host name or IPv4 address")
    port: int = Field(8443, ge=1, le=65535, description="the one public port, HTTPS")
    superlink_port: int = Field(8000, ge=1, le=65535, description="Flower's own port, on loopback only")

    @model_validator(mode="after")
    def _two_ports(self) -> Self:
        if self.port == self.superlink_port:
            raise ValueError("server.port and server.superlink_port are the same; give each a port of its own")
        return self


class SiteEntry(Settings):
    """One hospital."""

    name: str = Field(pattern=Name, description="its name in the federation and of its kit")
    role: Role = Field("train", description="predict-only: sends figures, never trains")
    own_key: bool = Field(False, description="true: the site makes its key pair and sends only the public half")
    rehearsal: PhantomHolding | None = Field(None, description="phantoms that it rehearses with instead of images")

    @model_validator(mode="before")
    @classmethod
    def _rehearsals_are_of_phantoms(cls, raw: Any) -> Any:
        """`kind` need not be written: there is only one."""
        held = raw.get("rehearsal") if isinstance(raw, dict) else None
        return {**raw, "rehearsal": {"kind": "phantoms", **held}} if isinstance(held, dict) else raw


class Project(Settings):
    """Everything that kits are made from."""

    name: str = Field(pattern=Name, description="the federation's name")
    contact: str = Field(min_length=1, description="whom a site calls: name, telephone, mail")
    server: ServerAddress
    sites: tuple[SiteEntry, ...] = Field(min_length=1)
    days: int = Field(365, ge=1, le=825, description="validity of the server's certificates")
    authority_days: int = Field(3650, ge=2, description="validity of the authority")
    curve: Literal["P-256", "P-384"] = Field("P-384", description="elliptic curve of authority and certificates")
    federation: Path | dict[str, Any] = Field(description="the run's config, a file or written here, without hospitals")

    @model_validator(mode="after")
    def _possible(self) -> Self:
        names = [site.name.lower() for site in self.sites]  # folders of some file systems do not tell case
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sites are called {twice[0]!r}; give every site a name of its own")
        if taken := [name for name in names if name in RESERVED]:
            raise ValueError(f"a site cannot be called {taken[0]!r}, as a folder of the kits is; choose another name")
        if self.days >= self.authority_days:
            raise ValueError("days must be fewer than authority_days; an authority outlives what it signs")
        return self

    def federation_yaml(self) -> str:
        """The run's config with this project's sites as its hospitals, as text. Raises ConfigError."""
        from fed_fsad.config import parse_config  # imported late: the server starts and stops without torch

        text = self._federation_text()
        hospitals = "".join(hospital_line(site) for site in self.sites)
        whole = f"{text.rstrip()}\n\n# Who takes part. Every other key is explained in docs/running.md.\n"
        whole += f"hospitals:\n{hospitals}"
        parse_config(whole, "federation")
        return whole

    def _federation_text(self) -> str:
        if isinstance(self.federation, dict):
            inline = {"name": self.name, **self.federation}
            text = yaml.safe_dump(inline, sort_keys=False, allow_unicode=True)
        else:
            text = _read(self.federation, "the federation's config")
        if re.search(r"^hospitals\s*:", text, flags=re.MULTILINE):
            raise ConfigError("federation: leave out `hospitals`; they are the project's sites")
        return text


def hospital_line(site: SiteEntry) -> str:
    """How federation.yaml names one site."""
    return f'{HOSPITAL}"{site.name}", role: {site.role}}}\n'


def load_project(path: Path) -> Project:
    """The project in a YAML file; a federation file is meant from its folder. Raises ConfigError."""
    text = _read(path, "the project")
    try:
        raw = yaml.safe_load(text)
        project = Project.model_validate(raw)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())}); mend that line") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, Project)}") from error
    if isinstance(project.federation, Path):
        project = project.model_copy(update={"federation": path.resolve().parent / project.federation})
    return project


def _read(path: Path, what: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {what} cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: {what} is not UTF-8 text; save it as UTF-8") from error
