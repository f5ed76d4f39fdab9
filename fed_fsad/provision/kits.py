"""The folder of all kits: sites come and go, keys are taken, replaced and revoked, every step is written down."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fed_fsad.config import load_config, parse_config
from fed_fsad.durable import replace
from fed_fsad.errors import ConfigError
from fed_fsad.explain import explain
from fed_fsad.names import suggestion
from fed_fsad.provision.contents import write_site_kit
from fed_fsad.provision.keys import fingerprint, make_node_keys, public_line
from fed_fsad.provision.project import HOSPITAL, Project, SiteEntry, hospital_line, load_project
from fed_fsad.provision.record import note

FEDERATION = "federation.yaml"


class Kits:
    """The kits of one project, with their authority."""

    def __init__(self, folder: Path, project: Project) -> None:
        self.folder = folder
        self.project = project
        self.authority = folder / "authority"
        self.server = folder / "server"

    @classmethod
    def open(cls, folder: Path) -> "Kits":
        """Kits that were made before. Raises ConfigError when there are none."""
        path = folder / "authority" / "project.yaml"
        if not path.exists():
            raise ConfigError(f"{folder} holds no kits with their authority; make them with `fed-fsad provision make`")
        return cls(folder, load_project(path))

    def site(self, name: str) -> SiteEntry:
        """The site of that name. Raises ConfigError with the nearest right one."""
        for site in self.project.sites:
            if site.name == name:
                return site
        known = [site.name for site in self.project.sites]
        raise ConfigError(f"there is no site {name!r} in {self.folder}; {suggestion(name, known)}")

    def public_key(self, name: str) -> Path:
        """Where the public key of a site lies, or will lie once it has sent it."""
        return self.server / "sites" / f"{name}.pub"

    def add(self, site: Mapping[str, Any], public: Path | None = None) -> None:
        """Make the kit of a new site, with its key pair unless it makes its own.

        site: the keys of SiteEntry. public: the public half that it sent. Raises ConfigError, and nothing is done.
        """
        project = self._with(site)
        entry = project.sites[-1]
        folder = self.folder / entry.name
        if folder.exists():
            raise ConfigError(f"{folder} exists already, and kits overwrite nothing; move it away first")
        if public is not None:
            self._check_new(public)
        self._name_hospital(entry)
        self.give_trust(folder)
        folder.chmod(0o700)
        write_site_kit(folder, project, entry, load_config(self.server / FEDERATION))
        if public is None and not entry.own_key:
            public = make_node_keys(folder / "node.key")
        if public is not None:
            self._take_key(entry.name, public)
        self._save(project)

    def accept(self, name: str, public: Path) -> None:
        """Take the public key that a site made itself. Raises ConfigError."""
        self.site(name)
        if self.public_key(name).exists():
            raise ConfigError(
                f"{name} has a key already; replace it with "
                f"`fed-fsad provision rotate {self.folder} site {name} --public-key {public}`"
            )
        self._check_new(public)
        self._take_key(name, public)

    def revoke(self, name: str) -> None:
        """Take a site's key from the list and the site out of the project; its kit stays where it is."""
        leaving = self.site(name)
        rest = tuple(site for site in self.project.sites if site != leaving)
        if not rest:
            raise ConfigError(f"{name} is the last site, and no federation is without sites; add another one first")
        self._forget_hospital(leaving)
        self._revoke_key(name)
        self._save(self.project.model_copy(update={"sites": rest}))

    def renew_key(self, name: str, public: Path | None = None) -> None:
        """Replace a site's key by `public`, or by a new pair in its kit; the old one is revoked. Raises ConfigError."""
        site, folder = self.site(name), self.folder / name
        if public is None and site.own_key:
            raise ConfigError(
                f"{name} makes its own keys; ask it for a new one and give its node.pub with --public-key"
            )
        if public is not None:
            self._check_new(public)
        self._revoke_key(name)
        if public is None:
            for old in (folder / "node.key", folder / "node.pub"):
                old.unlink(missing_ok=True)
            public = make_node_keys(folder / "node.key")
        self._take_key(name, public)

    def give_trust(self, folder: Path) -> None:
        """Put the authorities that are trusted today into a kit."""
        trusted = [self.authority / "ca.crt", self.authority / "previous" / "ca.crt"]
        replace(folder / "ca.crt", b"".join(path.read_bytes() for path in trusted if path.exists()))

    def _with(self, site: Mapping[str, Any]) -> Project:
        """The project with one more site. Raises ConfigError."""
        raw = self.project.model_dump(mode="json")
        try:
            return Project.model_validate({**raw, "sites": [*raw["sites"], site]})
        except ValidationError as error:
            raise ConfigError(explain(error, Project)) from error

    def _check_new(self, public: Path) -> None:
        wanted = fingerprint(public)
        for path in sorted((self.server / "sites").glob("**/*.pub")):
            if fingerprint(path) == wanted:
                where = "was revoked" if path.parent.name == "revoked" else f"is that of {path.stem}"
                raise ConfigError(f"{public}: this key {where}; every site needs a key of its own, make a new one")

    def _take_key(self, name: str, public: Path) -> None:
        replace(self.public_key(name), public_line(public) + b"\n")
        note(self.authority, "key", name, self.public_key(name))

    def _revoke_key(self, name: str) -> None:
        public, revoked = self.public_key(name), self.server / "sites" / "revoked"
        if not public.exists():
            return
        note(self.authority, "revoked", name, public)
        revoked.mkdir(exist_ok=True)
        count = len(list(revoked.glob(f"{name}.*.pub")))
        public.rename(revoked / f"{name}.{count + 1}.pub")

    def _name_hospital(self, site: SiteEntry) -> None:
        lines = self._federation_lines()
        if hospital_line(site) in lines:
            return
        named = [number for number, line in enumerate(lines) if line.startswith(HOSPITAL)]
        if not named:
            raise ConfigError(f"{self.server / FEDERATION}: no line starts with {HOSPITAL!r}; add {site.name} by hand")
        lines.insert(named[-1] + 1, hospital_line(site))
        self._write_federation(lines)

    def _forget_hospital(self, site: SiteEntry) -> None:
        self._write_federation([line for line in self._federation_lines() if line != hospital_line(site)])

    def _federation_lines(self) -> list[str]:
        return (self.server / FEDERATION).read_text(encoding="utf-8").splitlines(keepends=True)

    def _write_federation(self, lines: list[str]) -> None:
        path, text = self.server / FEDERATION, "".join(lines)
        parse_config(text, str(path))
        replace(path, text.encode())

    def _save(self, project: Project) -> None:
        self.project = project.model_copy(update={"federation": Path("../server") / FEDERATION})
        text = yaml.safe_dump(self.project.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        replace(self.authority / "project.yaml", text.encode())
