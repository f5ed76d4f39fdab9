"""One command's worth of simulation: the federation, what it is compared with, the summary, the report."""

from pathlib import Path

from fed_fsad.config import Config
from fed_fsad.data.build import dealt_out, found, skipped
from fed_fsad.data.dealt import table
from fed_fsad.durable import replace
from fed_fsad.errors import ConfigError
from fed_fsad.progress import Progress
from fed_fsad.residents import use
from fed_fsad.rundir import Resume, RunDir
from fed_fsad.summary import recorded
from simulations.arms import missing_arms, run_arms
from simulations.inprocess import run_inprocess
from simulations.ray import run_on_ray

ENGINES = {"inprocess": run_inprocess, "ray": run_on_ray}


def simulate(config: Config, out: Path, progress: Progress, resume: Resume = "fresh") -> RunDir:
    """Run everything that `config` asks for in the folder `out`; the report lies in it afterwards.

    Raises UserError subclasses for what a user can mend; after any error the summary says "failed" and why, and what
    was written stays for a resume.
    """
    _check_holdings(config)
    use(config.machine)
    run = RunDir.open(out, config, resume)
    with recorded(run), progress:
        if (text := found(config.data)) is not None:
            progress({"kind": "found", "text": text})
        _log_skipped(config, run, progress)
        _write_partition(config, run)
        ENGINES[config.engine](config, run, progress)
        if missing_arms(config, run):
            run.mark_running()
        run_arms(config, run, progress)
    return run


def _check_holdings(config: Config) -> None:
    """Raises ConfigError for a federation of real hospitals, whose images are not here."""
    for hospital in config.hospitals:
        if hospital.name not in config.holdings:
            raise ConfigError(
                f"hospital {hospital.name!r} does not say what it holds, which a simulation must know; "
                "state it under holds, or start a real federation with `fed-fsad server run`"
            )


def _log_skipped(config: Config, run: RunDir, progress: Progress) -> None:
    """Images that could not be read are left out, and said so, once."""
    if any(line["kind"] == "skipped" for line in run.events()):
        return

    def on_file(done: int, total: int) -> None:
        progress({"kind": "step", "site": "all", "method": "images", "what": "reading", "done": done, "total": total})

    images = [{"name": image.name, "reason": image.reason} for image in skipped(config.data, on_file)]
    run.log({"kind": "skipped", "images": images})


def _write_partition(config: Config, run: RunDir) -> None:
    """partition.csv: who holds which image, where a partition dealt them out."""
    if config.partition is not None:
        unseen = frozenset(config.evaluation.unseen_categories), config.evaluation.unseen_task
        found = dealt_out(config.data, config.partition, config.seed, *unseen)
        replace(run.path / "partition.csv", table(found, config.partition.column).encode())
