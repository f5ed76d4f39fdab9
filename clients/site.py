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
from fed_fsad.config import Config, Hospital, parse_config, resolved_yaml
from fed_fsad.data.build import hospital_samples, hospital_test_samples, site_samples
from fed_fsad.data.samples import Sample
from fed_fsad.data.scan import scan
from fed_fsad.data.settings import FolderData, PhantomData, PhantomRehearsal, Role
from fed_fsad.errors import ConfigError
from fed_fsad.privacy.policy import Policy, load_policy
from fed_fsad.residents import use
from fed_fsad.rundir import RunDir, from_root


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
    return _hospital(_simulated(context)[0], context).name


def site_role(context: Context) -> Role:
    """What this node takes part in, without opening its images."""
    if "site-config" in context.node_config:
        return load_settings(Path(str(context.node_config["site-config"]))).role
    return _hospital(_simulated(context)[0], context).role


def open_site(context: Context) -> Site:
    """The site this node stands for: site.yaml's on a real host, one hospital of the run's config in a simulation.

    Its process computes on the device its host names. Raises ConfigError and DataError with one sentence each.
    """
    if "site-config" in context.node_config:
        return real_site(load_settings(Path(str(context.node_config["site-config"]))))
    config, run = _simulated(context)
    use(config.machine)
    hospital = _hospital(config, context)
    samples = _samples(resolved_yaml(config), hospital.name)
    test: list[Sample] = []
    if hospital.policy.release_metrics:
        test = hospital_test_samples(config.data, config.holdings, hospital.name, config.seed)
    state = RunDir(run).site(hospital.name)
    return Site(hospital.name, hospital.role, samples, hospital.policy, state, simulated=True, test=tuple(test))


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


def _hospital(config: Config, context: Context) -> Hospital:
    place = int(context.node_config["partition-id"])
    if not 0 <= place < len(config.hospitals):
        raise ConfigError(
            f"this is node {place} and the config has {len(config.hospitals)} hospitals; start as many nodes as those"
        )
    return config.hospitals[place]


def _simulated(context: Context) -> tuple[Config, Path]:
    run = from_root(str(context.run_config["out"]))
    return _config((run / "config.yaml").read_text(encoding="utf-8")), run


@lru_cache(maxsize=8)
def _config(text: str) -> Config:
    return parse_config(text, "config.yaml of the run")


@lru_cache(maxsize=256)
def _samples(config_text: str, name: str) -> tuple[Sample, ...]:
    config = _config(config_text)
    unseen = config.evaluation
    return tuple(
        hospital_samples(
            config.data, config.holdings, name, config.seed, frozenset(unseen.unseen_categories), unseen.unseen_task
        )
    )
