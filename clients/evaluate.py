"""A site's own few-shot evaluation of the model it was sent: on its own images, with supports of its own."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from clients.personal import fine_tune, personal
from clients.received import load_received, without
from clients.site import Site
from fed_fsad import __version__
from fed_fsad.data.samples import Sample
from fed_fsad.evaluation.bed import TestBed
from fed_fsad.evaluation.detection import headline_shots
from fed_fsad.evaluation.protocols import evaluate
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.messages import Instruction, Reply
from fed_fsad.methods.method import Method
from fed_fsad.privacy.terms import agreed
from fed_fsad.residents import resident, rows_of
from fed_fsad.seeds import derive, reproducible

log = logging.getLogger("fed_fsad.site")

PERSONAL = {"headline": "personal", "low": "personal_low", "high": "personal_high"}
"""What figures of a personal model are called beside those of the global one."""


def evaluate_round(site: Site, instruction: Instruction) -> Reply:
    """The answer of a site that only evaluates: figures where its policy releases them, never tensors."""
    reproducible(instruction.threads)
    if site.role == "train":  # what it trained on is under the server's terms, too
        site = replace(site, policy=agreed(site.policy, instruction.example))
    if instruction.local.fine_tune and instruction.round == instruction.rounds and site.role == "train":
        fine_tune(site, instruction)
    return Reply(
        site=site.name,
        version=__version__,
        run=instruction.run,
        round=instruction.round,
        attempt=instruction.attempt,
        role=site.role,
        evaluation=own_figures(site, instruction, instruction.round + 1),
    )


def own_figures(site: Site, instruction: Instruction, next_round: int) -> dict[str, dict[str, float]]:
    """Headline, its interval, K and the number of images, per method that was asked for; with the site's own parts as
    they are before `next_round`, and its personal model's headline and interval where it has one.

    Empty where the policy does not release them or nobody asked. Never raises: an evaluation is a courtesy, and what
    goes wrong in it stays in the site's own log and costs no round.
    """
    found: dict[str, dict[str, float]] = {}
    if instruction.evaluation is None or not site.policy.release_metrics:
        return found
    for name, settings in sorted(instruction.settings.items()):
        if site.policy.methods is not None and not site.policy.methods.get(name):
            continue
        try:
            method = resident(name, settings, instruction.seed)
            load_received(site, method, instruction, next_round)
            figures = _figures(site, method, instruction, settings.withheld)
            if figures and (own := personal(site, instruction, method, next_round)):
                method.load(own)
                mine = _figures(site, method, instruction, settings.withheld)
                figures |= {new: mine[old] for old, new in PERSONAL.items() if old in mine}
        except Exception:
            log.exception("%s: its own evaluation of %s failed", site.name, name)
            continue
        if figures:
            found[name] = figures
    return found


def _figures(site: Site, method: Method, instruction: Instruction, withheld: Sequence[str]) -> dict[str, float]:
    """Empty when the site's images do not allow an evaluation."""
    asked = instruction.evaluation
    bed = own_bed(site, instruction.seed, withheld)
    if asked is None or bed is None:
        return {}
    wanted = headline_shots(asked) if method.protocol == "detection" else max(asked.shots)
    shots = min(wanted, *(_normals(bed.pool, task) for task in bed.tasks()))
    if shots < 1:
        return {}
    settings = EvaluationSettings(shots=(shots,), draws=asked.draws, unseen_categories=tuple(withheld))
    seed = derive(instruction.seed, "own evaluation", site.name)
    result = evaluate(method, rows_of(method), bed, settings, seed).summary()
    headline, interval = result["headline"], result["interval"]
    if not isinstance(headline, float):
        return {}
    figures = {"headline": headline, "shots": float(shots), "images": float(len(bed.test))}
    if isinstance(interval, list):
        figures |= {"low": interval[0], "high": interval[1]}
    return figures


def own_bed(site: Site, seed: int, withheld: Sequence[str]) -> TestBed | None:
    """Supports from the site's train images, queries from its test images.

    A site without test images that never trains has all its images unseen: they are split in two, patient by patient
    and class by class, by the run's seed and the site's name. One that trains has none left to test on: None.
    """
    pool, test = without(site.samples, withheld), list(site.test)
    if not test and site.role == "predict-only":
        pool, test = _halves(pool, seed, site.name)
    return TestBed(tuple(pool), tuple(test)) if pool and test else None


def _halves(samples: Sequence[Sample], seed: int, name: str) -> tuple[list[Sample], list[Sample]]:
    units: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda sample: sample.id):
        units[sample.patient or sample.id].append(sample)
    alike: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for key in sorted(units, key=lambda key: derive(seed, "halves", name, key)):
        alike[tuple(sorted({category for sample in units[key] for category in sample.categories}))].append(key)
    first = [key for group in alike.values() for key in group[::2]]
    second = [key for group in alike.values() for key in group[1::2]]
    pool, test = ([sample for key in sorted(keys) for sample in units[key]] for keys in (first, second))
    return pool, test


def _normals(samples: Sequence[Sample], task: str) -> int:
    return sum(sample.is_normal and sample.task == task for sample in samples)
