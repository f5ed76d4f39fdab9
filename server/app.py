"""The ServerApp: opens the run directory, trains to the last round, and leaves a summary whatever happens."""

from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fed_fsad.config import load_config
from fed_fsad.errors import UserError
from fed_fsad.evaluation.report import write_report
from fed_fsad.progress import PlainProgress
from fed_fsad.rundir import RunDir
from fed_fsad.summary import summarise
from server.rounds import Coordinator, Observer
from server.scoring import Scorer

REPOSITORY = Path(__file__).resolve().parent.parent


def build_app(observer: Observer) -> ServerApp:
    """A ServerApp that tells `observer` what happens; the run's settings come from Flower's run config.

    config: path of the YAML. out: run directory. resume: continue the run that lies there.
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        run = open_run(context)
        config = run.config()
        torch.set_num_threads(config.threads)
        try:
            Coordinator(config, run, grid, Scorer(config, run), observer).train()
        except UserError as error:
            run.write_summary(summarise(run, "failed", str(error)))
            write_report(run.path)
            raise
        run.write_summary(summarise(run, "completed"))
        write_report(run.path)

    return app


def open_run(context: Context) -> RunDir:
    """The run directory that Flower's run config names; created unless `resume` says that it is there."""
    settings = context.run_config
    config = load_config(_existing(Path(str(settings["config"]))))
    out = Path(str(settings["out"])).resolve()
    return RunDir.resume(out, config) if settings.get("resume") else RunDir.create(out, config)


def _existing(path: Path) -> Path:
    """`flwr run` starts the app in a folder of its own: a config path is then meant from the repository's root."""
    return path if path.is_absolute() or path.exists() else REPOSITORY / path


app = build_app(PlainProgress())
