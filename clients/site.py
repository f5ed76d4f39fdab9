"""A hospital's own side: which images, which policy, where its state lies. None of it ever leaves.

What must survive a restart lies in the state folder: the privacy ledger, and the last released update of every run.
Nothing else has to: optimisers start anew in every round, every random stream is derived from (seed, site, round), and
all trained tensors come from the server, so a site that was killed answers the next round as if it never had been.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from flwr.app import Context

from clients.settings import SiteSettings, load_settings
from fed_fsad.config import Config, Hospital, parse_config
from fed_fsad.data.build import hospital_samples, hospital_test_samples, site_samples
from fed_fsad.data.plan import Holdings
from fed_fsad.data.samples import Sample
from fed_fsad.data.scan import scan
from fed_fsad.data.settings import FolderData, PhantomData, PhantomRehearsal, Role
from fed_fsad.errors import ConfigError
from fed_fsad.privacy.policy import Policy, load_policy
from fed_fsad.residents import use
from fed_fsad.rundir import RunDir, from_root

SITES_KEPT = 10_000
"""Simulated sites a process keeps open: the lists of their images, without a pixel."""


@dataclass(frozen=True)
class Site:
    """An opened site: its name, its role, its images, its policy, and the folder its state lives in.

    simulated: a hospital of a simulation, which protects nobody and may therefore draw its noise from a seed.
    test: images it never trains on, for its own evaluation; empty where it has none or releases no figures.
    """

    name: str
    role: Role
    samples: tuple[Sample, ...]
    policy: Policy
    state: Path
    simulated: bool
    test: tuple[Sample, ...] = ()


def site_name(context: Context) -> str:
    """Who this node is, without opening its images."""
    if "site-config" in context.node_config:
        return load_settings(Path(str(context.node_config["site-config"]))).name
    return _hospital(_simulated(context)[0], int(context.node_config["partition-id"])).name


def site_role(context: Context) -> Role:
    """What this node takes part in, without opening its images."""
    if "site-config" in context.node_config:
        return load_settings(Path(str(context.node_config["site-config"]))).role
    return _hospital(_simulated(context)[0], int(context.node_config["partition-id"])).role


def open_site(context: Context) -> Site:
    """The site this node stands for: site.yaml's on a real host, one hospital of the run's config in a simulation.

    Its process computes on the device its host names. Raises ConfigError and DataError with one sentence each.
    """
    if "site-config" in context.node_config:
        return real_site(load_settings(Path(str(context.node_config["site-config"]))))
    config, run = _simulated(context)
    use(config.machine)
    return _simulated_site(*_kept(run), int(context.node_config["partition-id"]))


def real_site(settings: SiteSettings) -> Site:
    """Its policy is read anew every time, so that a hospital that tightens it is obeyed from the next round on."""
    use(settings.machine)
    policy = load_policy(settings.policy)
    samples, test = own_samples(settings), own_test_samples(settings) if policy.release_metrics else ()
    return Site(settings.name, settings.role, samples, policy, settings.state, simulated=False, test=test)


def own_samples(settings: SiteSettings) -> tuple[Sample, ...]:
    """The train images of a real site, or the phantoms it rehearses with. Raises DataError and ConfigError."""
    return _own_samples(settings.name, settings.data)


def own_test_samples(settings: SiteSettings) -> tuple[Sample, ...]:
    """The test images of a real site, which it never trains on. Raises DataError and ConfigError."""
    data = settings.data
    if isinstance(data, FolderData):
        return scan(data).test
    return tuple(hospital_test_samples(_drawing(data), {settings.name: data}, settings.name, data.seed))


@lru_cache(maxsize=4)
def _own_samples(name: str, data: FolderData | PhantomRehearsal) -> tuple[Sample, ...]:
    if isinstance(data, FolderData):
        return tuple(site_samples(data))
    return tuple(hospital_samples(_drawing(data), {name: data}, name, data.seed, frozenset(data.withheld), None))


def _drawing(data: PhantomRehearsal) -> PhantomData:
    return PhantomData(
        kind="phantoms", pose_jitter=data.pose_jitter, lesion_contrast=data.lesion_contrast, multiple=data.multiple
    )


def _hospital(config: Config, place: int) -> Hospital:
    if not 0 <= place < len(config.hospitals):
        raise ConfigError(
            f"this is node {place} and the config has {len(config.hospitals)} hospitals; start as many nodes as those"
        )
    return config.hospitals[place]


def _simulated(context: Context) -> tuple[Config, Path]:
    run = from_root(str(context.run_config["out"]))
    return _config(*_kept(run))[0], run


def _kept(run: Path) -> tuple[Path, int, int]:
    """What one text of a run's config is known by: a process with a thousand sites reads it once."""
    stat = (run / "config.yaml").stat()
    return run, stat.st_mtime_ns, stat.st_ino


@lru_cache(maxsize=8)
def _config(run: Path, changed: int, file: int) -> tuple[Config, Holdings]:
    config = parse_config((run / "config.yaml").read_text(encoding="utf-8"), "config.yaml of the run")
    return config, config.holdings


@lru_cache(maxsize=SITES_KEPT)
def _simulated_site(run: Path, changed: int, file: int, place: int) -> Site:
    config, holdings = _config(run, changed, file)
    own = _hospital(config, place)
    unseen = frozenset(config.evaluation.unseen_categories), config.evaluation.unseen_task
    drawn = config.data, holdings, own.name, config.seed, *unseen
    test = tuple(hospital_test_samples(*drawn)) if own.policy.release_metrics else ()
    state, samples = RunDir(run).site(own.name), tuple(hospital_samples(*drawn))
    return Site(own.name, own.role, samples, own.policy, state, simulated=True, test=test)
