"""What stands in a kit: every file of the server's and of a site's folder, made from the templates."""

import textwrap
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fed_fsad import __version__
from fed_fsad.config import Config
from fed_fsad.data.settings import FolderData, PhantomData, PhantomRehearsal
from fed_fsad.durable import replace
from fed_fsad.privacy.policy import Policy
from fed_fsad.provision.explained import commented, explained
from fed_fsad.provision.project import Project, SiteEntry
from fed_fsad.provision.record import certificate_fingerprint

SERVER_UNIT = "fed-fsad-server.service"
SITE_UNIT = "fed-fsad-site.service"
PRIVILEGED = 1024
EXAMPLE = {"kind": "phantoms", "organs": ["oct"], "normal": 24, "abnormal": 8}
"""What a site without a rehearsal of its own finds in a comment."""
POLICY = {
    "privacy": '"off": updates leave as they are. example: whatever leaves is differentially private.',
    "epsilon": "The budget over all rounds, runs and methods; smaller protects more. With privacy: example you must "
    "state it yourself, for instance:",
    "delta": "The probability that is left out of the guarantee; must stay below 1 / number of images.",
    "methods": "Which parts of which methods may be trained and sent, e.g. {d24fad: [affine], sdmad: [context]}; "
    "null: everything.",
}
"""Longer words than the model's own, for somebody who reads nothing else."""
TEMPLATES = Environment(  # text files, not HTML
    loader=PackageLoader("fed_fsad.provision"), undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
)


def write_server_kit(folder: Path, project: Project) -> None:
    """The server's settings, scripts and instructions; certificates and keys come from elsewhere."""
    facts = _facts(project, folder / "ca.crt", SERVER_UNIT)
    service = {
        "description": f"Server of the federation {project.name}",
        "command": "server start --foreground @KIT@",
        "capabilities": "CAP_NET_BIND_SERVICE" if project.server.port < PRIVILEGED else "",
    }
    for name in ("server.yaml", "nginx.conf"):
        _write(folder / name, name, facts)
    write_app(folder / "app", project.name)
    _write(folder / "README.md", "README-server.md", facts)
    _write(folder / SERVER_UNIT, "unit.service", service)
    _write(folder / "start.sh", "start-server.sh", facts, executable=True)
    _write(folder / "install-service.sh", "install-service.sh", facts, executable=True)


def write_site_kit(folder: Path, project: Project, site: SiteEntry, run: Config) -> None:
    """A site's settings, scripts and instructions; certificate and keys come from elsewhere."""
    facts = {
        **_facts(project, folder / "ca.crt", SITE_UNIT),
        "site": site,
        "images": _inner(_images(run)),
        "phantoms": _inner(_phantoms(site, run)),
        "policy": _policy(site),
        "commented": commented,
    }
    service = {
        "description": f"Site {site.name} of the federation {project.name}",
        "command": "site start --foreground @KIT@/site.yaml",
        "capabilities": "",
    }
    for name in ("site.yaml", "policy.yaml"):
        _write(folder / name, name, facts)
    _write(folder / "README.md", "README-site.md", facts)
    _write(folder / SITE_UNIT, "unit.service", service)
    _write(folder / "start.sh", "start-site.sh", facts, executable=True)
    _write(folder / "install-service.sh", "install-service.sh", facts, executable=True)


def _policy(site: SiteEntry) -> str:
    """The defaults; a budget is for the site itself to state."""
    figures = {"release_metrics": site.role == "predict-only"}
    return explained(Policy, figures, POLICY, silent=("epsilon",)).rstrip()


def _images(run: Config) -> str:
    """How a site says where its images lie, with the run's task and class names if it has them."""
    told = {}
    if isinstance(run.data, FolderData):
        told = {"task": run.data.task, "normal": list(run.data.normal)}
    meanings = {"kind": "folder: images on disk.", "pool": "For the server only; a site keeps no pool."}
    return explained(FolderData, {"kind": "folder", "root": "images", "task": "brain_mri", **told}, meanings)


def _phantoms(site: SiteEntry, run: Config) -> str:
    """A rehearsal that draws what a simulation of the run draws for this site."""
    held = site.rehearsal.model_dump(mode="json") if site.rehearsal else EXAMPLE
    told = {"seed": run.seed, "withheld": list(run.evaluation.unseen_categories)}
    if isinstance(run.data, PhantomData):
        told |= run.data.model_dump(include={"pose_jitter", "lesion_contrast", "multiple"})
    meanings = {"kind": "phantoms: images drawn by this project's generator.", "organs": "Which organs it holds."}
    return explained(PhantomRehearsal, {**held, **told}, meanings)


def write_app(folder: Path, federation: str) -> None:
    """A thin Flower app: it names our installed packages, and carries no code of its own."""
    _write(folder / "pyproject.toml", "app.toml", {"name": federation, "version": __version__})


def _inner(block: str) -> str:
    return textwrap.indent(block, "  ").rstrip()


def _facts(project: Project, authority: Path, unit: str) -> dict[str, Any]:
    return {
        "name": project.name,
        "contact": project.contact,
        "server": project.server,
        "version": __version__,
        "authority": certificate_fingerprint(authority),
        "unit": unit,
    }


def _write(path: Path, template: str, facts: dict[str, Any], executable: bool = False) -> None:
    replace(path, TEMPLATES.get_template(template).render(facts).encode())
    path.chmod(0o755 if executable else 0o644)
