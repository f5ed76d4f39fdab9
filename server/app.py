"""The ServerApp: opens the run directory, trains to the last round, and leaves a summary of success and failure."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fed_fsad.config import load_config
from fed_fsad.progress import PlainProgress
from fed_fsad.rundir import RunDir, from_root
from fed_fsad.seeds import reproducible
from fed_fsad.summary import recorded
from server.rounds import Coordinator, Observer
from server.scoring import Scorer


def build_app(observer: Observer) -> ServerApp:
    """A ServerApp that tells `observer` what happens; the run's settings come from Flower's run config.

    config: path of the YAML. out: run directory. resume: continue the run that lies there. Paths that are not absolute
    are meant from the repository's root.
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
    """The run directory that Flower's run config names; created unless `resume` says that it is there."""
    settings = context.run_config
    config, out = load_config(from_root(str(settings["config"]))), from_root(str(settings["out"]))
    return RunDir.resume(out, config) if settings.get("resume") else RunDir.create(out, config)


app = build_app(PlainProgress())
