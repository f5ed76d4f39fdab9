"""`fed-fsad site check`: everything that can be wrong at a site, one line each, the true cause and what to do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clients.check import account, host, images, network, training
from clients.check.line import Line, Status, fail, ok
from clients.settings import SiteSettings, load_settings
from fed_fsad.errors import UserError

__all__ = ["CHECKS", "Check", "Line", "Status", "inspect"]

SETTINGS = "site.yaml"


@dataclass(frozen=True)
class Check:
    """One check. needs: checks that must not have failed, or this one has nothing to say."""

    name: str
    run: Callable[[SiteSettings], Line]
    needs: tuple[str, ...] = ()


CHECKS = (
    Check("versions", host.versions),
    Check("policy", account.policy),
    Check("image list", images.findings(images.LISTED, "listed")),
    Check("images", images.findings(images.READ, "every file can be read"), ("image list",)),
    Check("classes", images.findings(images.COUNTED, "every class has enough images"), ("image list",)),
    Check("image sizes", images.findings(images.SHAPED, "all alike"), ("image list",)),
    Check("duplicates", images.findings(images.TWICE, "no image is there twice"), ("image list",)),
    Check("splits", images.findings(images.APART, "no patient is in train and test at once"), ("image list",)),
    Check("training", training.enough, ("policy", "images", "classes", "duplicates", "splits")),
    Check("state folder", host.state_folder),
    Check("ledger", account.budget, ("policy", "state folder")),
    Check("disk", host.disk),
    Check("memory", host.memory),
    Check("accelerator", host.accelerator),
    Check("connection", network.named),
    Check("node key", account.node_key, ("connection",)),
    Check("server name", network.address, ("connection",)),
    Check("port", network.port, ("server name",)),
    Check("clock", network.clock, ("port",)),
    Check("authority", network.authority, ("connection",)),
    Check("certificate", network.certificate, ("port", "authority")),
    Check("server", network.healthy, ("certificate",)),
)


def inspect(path: Path) -> Iterator[tuple[str, Line]]:
    """Every check's name and line for the site of `path`, in order, as each is done."""
    try:
        settings = load_settings(path)
    except UserError as error:
        yield SETTINGS, fail(str(error), "")
        for check in CHECKS:
            yield check.name, _skipped(SETTINGS)
        return
    yield SETTINGS, ok(f"{settings.name}, {settings.role}")
    without: set[str] = set()
    for check in CHECKS:
        missing = next((name for name in check.needs if name in without), None)
        line = _skipped(missing) if missing else _run(check, settings)
        if line.status in ("fail", "skipped"):
            without.add(check.name)
        yield check.name, line


def _skipped(missing: str) -> Line:
    return Line("skipped", f"needs {missing}")


def _run(check: Check, settings: SiteSettings) -> Line:
    try:
        return check.run(settings)
    except UserError as error:
        return fail(str(error), "")
    except PermissionError as error:
        return fail(f"permission denied: {error.filename}", "give the user of this program the right to read it")
