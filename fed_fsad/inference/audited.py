"""What a run promised, site by site and method by method, and the images that an audit of it attacks."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fed_fsad import methods
from fed_fsad.config import Config, Hospital
from fed_fsad.data.build import hospital_samples
from fed_fsad.data.episodes import eligible
from fed_fsad.data.phantoms import phantom_set
from fed_fsad.data.samples import Sample
from fed_fsad.data.signs import TaskSigns, load_signs
from fed_fsad.errors import CheckpointError, ConfigError, UserError
from fed_fsad.methods.method import Method, TrainingSettings, part_of, travelling
from fed_fsad.methods.sdmad.settings import Settings as SdMadSettings
from fed_fsad.names import suggestion
from fed_fsad.privacy.audit.ground import Ground
from fed_fsad.privacy.audit.subject import Subject
from fed_fsad.privacy.policy import Policy
from fed_fsad.privacy.terms import agreed
from fed_fsad.residents import rows_of
from fed_fsad.rundir import RunDir

log = logging.getLogger(__name__)

ORGAN = "oct"
LEAST = 48
MOST = 160
"""Images of the pool: below the first number phantoms are taken, above the second the rest is left."""


def subjects_of(folder: Path, seed: int, chosen: str | None = None) -> list[Subject]:
    """One subject per method and terms that sites of the run trained it under, or per method where nobody had terms.

    chosen: one method only. Nothing of the run is changed and no ledger is opened. Raises CheckpointError when there
    is no run, ConfigError for a method that it did not train.
    """
    run = RunDir(folder)
    if not (folder / "config.yaml").is_file():
        raise CheckpointError(f"{folder} holds no run; give a run directory, e.g. runs/demo")
    config = run.config()
    if chosen is not None and chosen not in config.methods:
        raise ConfigError(f"{folder} has trained no {chosen!r}; {suggestion(chosen, config.methods)}")
    terms = _terms(config, run.events())
    found: list[Subject] = []
    for name, settings in sorted(config.training.items()):
        if chosen in (None, name):
            found += _subjects(config, name, settings, terms, seed)
    return found


def _subjects(
    config: Config, name: str, settings: TrainingSettings, terms: Mapping[str, Policy], seed: int
) -> list[Subject]:
    method = methods.build(name, settings, config.seed)
    ground = Ground(method, rows_of(method)(_pool(config, method, settings)), seed)
    parts = tuple(dict.fromkeys(part_of(tensor) for tensor in travelling(method.trainable(), settings)))
    bound: dict[tuple[Policy, tuple[str, ...]], list[str]] = {}
    for site, policy in terms.items():
        allowed = policy.allowed_parts(name, parts)
        if policy.privacy != "off" and allowed:
            alike = policy.model_copy(update={"methods": None, "smallest_cohort": 1, "smallest_records": 1})
            bound.setdefault((alike, allowed), []).append(site)
    if not bound:
        return [Subject(ground, tuple(terms), None, parts)]
    rounds = config.federation.rounds
    return [
        Subject(ground, tuple(sites), policy, allowed, rounds * policy.steps_per_round)
        for (policy, allowed), sites in bound.items()
    ]


def _terms(config: Config, events: Sequence[Mapping[str, Any]]) -> dict[str, Policy]:
    """What each site that trains is bound to: in a simulation by its policy and the server, else by what it said."""
    said = {event["site"]: event for event in events if event["kind"] == "site" and event.get("epsilon") is not None}

    def policy_of(hospital: Hospital) -> Policy:
        own = agreed(hospital.policy, config.privacy.asked)
        if own.privacy != "off" or hospital.name not in said:
            return own
        event = said[hospital.name]
        return Policy(privacy="example", epsilon=event["epsilon"], delta=event["delta"], unit=event["unit"])

    return {hospital.name: policy_of(hospital) for hospital in config.hospitals if hospital.role == "train"}


def _pool(config: Config, method: Method, settings: TrainingSettings) -> list[Sample]:
    """Images of one task that the method can train on, without patients: the run's own, or phantoms in their place."""
    own = _of_one_task(_held(config), method, settings)
    if len(own) >= LEAST:
        return own[:MOST]
    phantoms = phantom_set(ORGAN, MOST, 0 if method.episode.normals_only else MOST, 0, config.seed)
    log.info("%s: the run's own images are too few here, or not here; phantoms are attacked instead", method.name)
    return _of_one_task(_with_signs(phantoms, settings), method, settings)[:MOST]


def _held(config: Config) -> list[Sample]:
    """What the run's simulated hospitals hold, as far as it can be read here."""
    unseen = config.evaluation
    withheld = frozenset(unseen.unseen_categories)
    found: list[Sample] = []
    for site in config.holdings:
        try:
            found += hospital_samples(config.data, config.holdings, site, config.seed, withheld, unseen.unseen_task)
        except UserError as error:
            log.info("%s: %s", site, error)
    return found


def _of_one_task(samples: Sequence[Sample], method: Method, settings: TrainingSettings) -> list[Sample]:
    """Those of the task with most of them, each once, normal and abnormal in turn."""
    usable = [sample for sample in samples if not set(sample.categories) & set(settings.withheld)]
    able = {usable[i].id: replace(usable[i], patient=None) for i in eligible(usable, method.episode)}
    if not able:
        return []
    most = Counter(sample.task for sample in able.values()).most_common()
    task = min(name for name, count in most if count == most[0][1])
    own = [sample for sample in able.values() if sample.task == task]
    sides = [[sample for sample in own if sample.is_normal is side] for side in (True, False)]
    turns = [sample for pair in zip(*sides, strict=False) for sample in pair]
    return turns + [sample for sample in own if sample not in turns]


def _with_signs(phantoms: Sequence[Sample], settings: TrainingSettings) -> list[Sample]:
    """Phantoms as they are, or under the names of the method's own signs where these know no phantoms."""
    tasks: dict[str, TaskSigns] = {}
    for signs in settings.signs if isinstance(settings, SdMadSettings) else ():
        tasks |= load_signs(signs).tasks
    if not tasks or ORGAN in tasks:
        return list(phantoms)
    task = min(tasks)
    names = sorted(set(tasks[task].categories) - set(settings.withheld))
    return [
        replace(sample, task=task, categories=() if sample.is_normal or not names else (names[i % len(names)],))
        for i, sample in enumerate(phantoms)
    ]
