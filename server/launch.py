"""One run of a real federation: handed to the kit's SuperLink, followed to its end, and taken up again after a stop."""

from pathlib import Path

from fed_fsad.config import Config
from fed_fsad.errors import FederationError
from fed_fsad.progress import Progress
from fed_fsad.rundir import Resume, RunDir
from server.current import CurrentRun, recall, remember
from server.kit import ServerKit
from server.superlink import CONNECTION, SuperLink


def run(kit: ServerKit, config: Config, out: Path, resume: Resume, progress: Progress) -> RunDir:
    """Train the federation of `config` in the folder `out`, with the sites that are registered at the kit's server.

    A run that goes on there already (its follower was lost) is followed again, unless `resume` says "fresh". Ctrl-C
    ends the run; it can be resumed. Raises UserError when it does not complete.
    """
    superlink = kit.running
    out = out.resolve()
    identity = _going_on(kit, superlink, out, resume)
    if identity is None:
        opened = RunDir.open(out, config, resume)
        if opened.status == "completed":
            return opened
        identity = superlink.submit(kit.folder / "app", opened)
        remember(kit, CurrentRun(identity, str(out)))
    with progress:
        try:
            superlink.follow(RunDir(out), identity, progress)
        except KeyboardInterrupt:
            superlink.flwr("stop", identity, CONNECTION)
            raise
    return RunDir(out)


def _going_on(kit: ServerKit, superlink: SuperLink, out: Path, resume: Resume) -> str | None:
    """Flower's number of the run that trains in `out` right now, if there is one.

    Raises FederationError when another run goes on.
    """
    current = recall(kit)
    if current is None:
        return None
    try:
        over = superlink.status(current.run)[0].startswith("finished")
    except FederationError:
        return None  # the database was removed, and the run with it
    if over:
        return None
    if current.out != str(out) or resume == "fresh":
        raise FederationError(
            f"a run goes on in {current.out}; wait for it, or follow it with --out {current.out} --resume auto"
        )
    return current.run
