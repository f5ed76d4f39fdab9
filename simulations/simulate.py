"""One command's worth of simulation: the federation, what it is compared with, the summary, the report."""

from pathlib import Path

from fed_fsad.config import Config
from fed_fsad.data.build import skipped
from fed_fsad.progress import Progress
from fed_fsad.rundir import RunDir
from fed_fsad.summary import recorded
from simulations.arms import run_arms
from simulations.inprocess import run_inprocess
from simulations.ray import run_on_ray

ENGINES = {"inprocess": run_inprocess, "ray": run_on_ray}


def simulate(config: Config, out: Path, progress: Progress, resume: bool = False) -> RunDir:
    """Run everything that `config` asks for in the folder `out`; the report lies in it afterwards.

    Raises UserError subclasses for what a user can mend; after any error the summary says "failed" and why, and what
    was written stays for a resume.
    """
    run = RunDir.resume(out, config) if resume else RunDir.create(out, config)
    with recorded(run), progress:
        _log_skipped(config, run)
        ENGINES[config.engine](config, run, progress)
        run_arms(config, run, progress)
    return run


def _log_skipped(config: Config, run: RunDir) -> None:
    """Images that could not be read are left out, and said so, once."""
    if any(line["kind"] == "skipped" for line in run.events()):
        return
    images = [{"name": image.name, "reason": image.reason} for image in skipped(config.data)]
    run.log({"kind": "skipped", "images": images})
