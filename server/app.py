"""The ServerApp: opens the run directory, trains to the last round, and leaves a summary of success and failure."""

from typing import cast, get_args

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fed_fsad.config import load_config
from fed_fsad.errors import ConfigError
from fed_fsad.progress import PlainProgress
from fed_fsad.rundir import Resume, RunDir, from_root
from fed_fsad.seeds import reproducible
from fed_fsad.summary import recorded
from server.rounds import Coordinator, Observer
from server.scoring import Scorer


def build_app(observer: Observer) -> ServerApp:
    """A ServerApp that tells `observer` what happens; the run's settings come from Flower's run config.

    config: path of the YAML. out: run directory. resume: fresh, auto or require, as `RunDir.open` has it. Paths that
    are not absolute are meant from the repository's root.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run = open_run(context)
        config = run.config()
        reproducible(config.threads)
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


app = build_app(PlainProgress())
