"""A hospital's own side: which images, which policy, where its state lies. None of it ever leaves."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import yaml
from flwr.app import Context
from pydantic import Field, ValidationError

from fed_fsad.config import Config, Hospital, parse_config, resolved_yaml
from fed_fsad.config.schema import Name
from fed_fsad.data.build import hospital_samples, site_samples
from fed_fsad.data.samples import Sample
from fed_fsad.data.settings import FolderData, Settings
from fed_fsad.errors import ConfigError
from fed_fsad.explain import explain
from fed_fsad.privacy.policy import Policy, load_policy
from fed_fsad.rundir import RunDir, from_root


class SiteSettings(Settings):
    """site.yaml of a real hospital; every path in it that is not absolute is relative to it."""

    name: str = Field(pattern=Name)
    data: FolderData
    policy: Path = Field(description="policy.yaml")
    state: Path = Field(description="folder for the ledger and the updates that were released under it")


@dataclass(frozen=True)
class Site:
    """An opened site: its name, its images, its policy, and the folder its state lives in.

    simulated: a hospital of a simulation, which protects nobody and may therefore draw its noise from a seed.
    """

    name: str
    samples: tuple[Sample, ...]
    policy: Policy
    state: Path
    simulated: bool


def site_name(context: Context) -> str:
    """Who this node is, without opening its images."""
    if "site-config" in context.node_config:
        return _settings(Path(str(context.node_config["site-config"]))).name
    return _hospital(_simulated(context)[0], context).name


def open_site(context: Context) -> Site:
    """The site this node stands for: site.yaml's on a real host, one hospital of the run's config in a simulation.

    Raises ConfigError and DataError with one sentence each.
    """
    if "site-config" in context.node_config:
        return _real_site(Path(str(context.node_config["site-config"])).resolve())
    config, run = _simulated(context)
    hospital = _hospital(config, context)
    samples = _samples(resolved_yaml(config), hospital.name)
    return Site(hospital.name, samples, hospital.policy, RunDir(run).site(hospital.name), simulated=True)


def _real_site(path: Path) -> Site:
    """Its policy is read anew every time, so that a hospital that tightens it is obeyed from the next round on."""
    settings = _settings(path)
    policy = load_policy(path.parent / settings.policy)
    data = settings.data.model_copy(update={"root": path.parent / settings.data.root.expanduser()})
    return Site(settings.name, _real_samples(data), policy, path.parent / settings.state, simulated=False)


@lru_cache(maxsize=4)
def _real_samples(data: FolderData) -> tuple[Sample, ...]:
    return tuple(site_samples(data))


def _settings(path: Path) -> SiteSettings:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return SiteSettings.model_validate(raw)
    except OSError as error:
        raise ConfigError(f"{path}: site.yaml cannot be read ({error.strerror}); check site-config") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())}); mend that line") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, SiteSettings)}") from error


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
