"""The ServerApp: opens the run directory, trains to the last round, and leaves a summary of success and failure."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast, get_args

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fed_fsad.config import load_config
from fed_fsad.durable import alone
from fed_fsad.errors import ConfigError, DataError, FederationError
from fed_fsad.progress import PlainProgress
from fed_fsad.residents import use
from fed_fsad.rundir import Resume, RunDir, from_root
from fed_fsad.seeds import reproducible
from fed_fsad.summary import recorded
from server.rounds import Coordinator, Observer
from server.scoring import Scorer

PATIENCE_S = 90.0
"""How long a run waits for another process to let go of its directory."""


def build_app(observer: Observer) -> ServerApp:
    """A ServerApp that tells `observer` what happens; the run's settings come from Flower's run config.

    config: path of the YAML. out: run directory. resume: fresh, auto or require, as `RunDir.open` has it. Paths that
    are not absolute are meant from the repository's root.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        with _alone(from_root(str(context.run_config["out"]))):
            run = open_run(context)
            config = run.config()
            reproducible(config.threads)
            use(config.machine)
            with recorded(run):
                Coordinator(config, run, grid, Scorer(config, run), observer).train()

    return app


def open_run(context: Context) -> RunDir:
    """The run directory that Flower's run config names, new or continued as its `resume` says."""
    settings = context.run_config
    config, out = load_config(from_root(str(settings["config"]))), from_root(str(settings["out"]))
    resume = settings.get("resume", "fresh")
    if resume not in get_args(Resume):
        raise ConfigError(f"resume of the run config is {resume!r}; write fresh, auto or require")
    return RunDir.open(out, config, cast(Resume, resume))


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """No two processes train in one run directory: a killed SuperLink leaves its ServerApp alive for a while."""
    with ExitStack() as held:
        try:
            held.enter_context(alone(out / ".lock", PATIENCE_S))
        except BlockingIOError as error:
            raise FederationError(f"another process trains in {out}; wait until it has ended, or end it") from error
        except OSError as error:
            raise DataError(f"{out} cannot be written ({error.strerror}); choose another --out") from error
        yield


app = build_app(PlainProgress())
