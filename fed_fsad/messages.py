"""The wire contract: what travels between server and site, by name and shape. Nothing else ever does."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fed_fsad import methods
from fed_fsad.arrays import Tensors, arrays_of, tensors_of, wire_bytes
from fed_fsad.data.settings import Name, Role
from fed_fsad.errors import UserError
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.fields import (
    LONGEST_TEXT,
    MalformedMessage,
    account,
    config_of,
    count,
    is_finite,
    number,
    records_of,
    text,
)
from fed_fsad.methods.local import LocalTraining
from fed_fsad.methods.method import TrainingSettings, part_of
from fed_fsad.privacy.terms import ExampleTerms, HospitalTerms

__all__ = [
    "LONGEST_TEXT",
    "Instruction",
    "MalformedMessage",
    "Reply",
    "Tensors",
    "arrays_of",
    "tensors_of",
    "wire_bytes",
]

STATUSES = ("ok", "refused", "budget_spent", "error")

VARIATES = "variates:"
"""Begins the names of records that hold SCAFFOLD's control variates instead of tensors."""

LONGEST_NAME = 200
MOST_FIGURES = 32
"""What a reply may hold of names and figures: all of it lands in the server's log, its report and on its screen."""


@dataclass(frozen=True)
class Instruction:
    """What the server asks of a site in one round.

    run: identifies the run across restarts. round: 1-based. rounds: planned in all. attempt: which try at the round.
    cohort: sites asked to train in this round. settings, tensors: by method. evaluation: shots and draws of the site's
    own evaluation of these tensors; None = not asked. insecure_noise_seed: tests only. texts: by method, a hash of the
    texts that the tensors belong to, which a site must read as well. example: privacy that every site is asked to make.
    hospital: privacy that the server promises to make of the updates. local: how the sites train. variates: SCAFFOLD's
    control variates of the server, by method, empty for any other training. entered: the last round whose step of this
    site's own variates they hold; 0 = none.
    """

    run: str
    round: int
    rounds: int
    seed: int
    threads: int
    cohort: int
    settings: Mapping[str, TrainingSettings]
    tensors: Mapping[str, Tensors]
    insecure_noise_seed: int | None = None
    attempt: int = 1
    evaluation: EvaluationSettings | None = None
    texts: Mapping[str, str] = field(default_factory=dict)
    example: ExampleTerms | None = None
    hospital: HospitalTerms | None = None
    local: LocalTraining = field(default_factory=LocalTraining)
    variates: Mapping[str, Tensors] = field(default_factory=dict)
    entered: int = 0

    def pack(self) -> RecordDict:
        """As Flower records: one ArrayRecord per method and part, one ConfigRecord for the rest."""
        config: dict[str, str | int] = {
            "run": self.run,
            "round": self.round,
            "rounds": self.rounds,
            "attempt": self.attempt,
            "seed": self.seed,
            "threads": self.threads,
            "cohort": self.cohort,
            "entered": self.entered,
            "settings": json.dumps({name: block.model_dump(mode="json") for name, block in self.settings.items()}),
            "texts": json.dumps(dict(self.texts)),
            "local": self.local.model_dump_json(),
        }
        if self.insecure_noise_seed is not None:
            config["insecure-noise-seed"] = self.insecure_noise_seed
        if self.evaluation is not None:
            config["evaluation"] = self.evaluation.model_dump_json()
        for level, terms in (("example", self.example), ("hospital", self.hospital)):
            if terms is not None:
                config[level] = terms.model_dump_json()
        records = _pack_tensors(self.tensors) | _pack_tensors(self.variates, VARIATES)
        return RecordDict({"instruction": ConfigRecord(dict(config)), **records})

    @classmethod
    def unpack(cls, content: RecordDict) -> "Instruction":
        """Back from records. Raises MalformedMessage, also for settings and numbers that make no sense."""
        config = config_of(content, "instruction")
        try:
            settings = dict(_settings(str(config["settings"])))
            keys = ("round", "rounds", "attempt", "seed", "threads", "cohort", "entered")
            numbers = {key: int(str(config[key])) for key in keys}
            asked = config.get("evaluation")
            evaluation = None if asked is None else EvaluationSettings.model_validate_json(str(asked))
            example = ExampleTerms.model_validate_json(str(config["example"])) if "example" in config else None
            hospital = HospitalTerms.model_validate_json(str(config["hospital"])) if "hospital" in config else None
            local = LocalTraining.model_validate_json(str(config["local"]))
            run = str(config["run"])
            texts = {str(name): str(digest) for name, digest in json.loads(str(config["texts"])).items()}
        except (KeyError, ValueError, AttributeError, UserError) as error:
            raise MalformedMessage(f"the instruction is incomplete ({type(error).__name__})") from error
        counted = [numbers[key] for key in ("rounds", "attempt", "threads", "cohort")]
        in_order = 0 <= numbers["entered"] < numbers["round"] <= numbers["rounds"]
        if not in_order or min(counted) < 1:
            raise MalformedMessage(
                "the instruction's round, rounds, attempt, threads, cohort or entered is out of range"
            )
        noise_seed = config.get("insecure-noise-seed")
        return cls(
            run=run,
            settings=settings,
            tensors=_unpack_tensors(content),
            insecure_noise_seed=noise_seed if isinstance(noise_seed, int) else None,
            evaluation=evaluation,
            texts=texts,
            example=example,
            hospital=hospital,
            local=local,
            variates=_unpack_tensors(content, VARIATES),
            **numbers,
        )


@dataclass(frozen=True)
class Reply:
    """What a site answers.

    status: one of STATUSES; any but "ok" carries no tensors. reason: a sentence free of paths and data.
    tensors: only the parts the site trained. examples: images behind each method's update, absent under DP.
    metrics: finite figures the site's policy allows out, per method. seconds: of training, 0 under DP. epsilon, delta,
    unit: what the site's ledger has spent so far; all three under DP, none without. run, round, attempt: of the
    instruction that is answered. role: what the site takes part in. evaluation: figures of the site's own evaluation of
    the tensors it was sent, per method, only where its policy releases them. variates: the steps of its control
    variates that SCAFFOLD asks for, of the tensors it sends.
    """

    site: str
    version: str
    status: str = "ok"
    reason: str = ""
    tensors: Mapping[str, Tensors] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    examples: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    epsilon: float | None = None
    delta: float | None = None
    unit: str | None = None
    claim: str | None = None
    run: str = ""
    round: int = 0
    attempt: int = 0
    role: Role = "train"
    evaluation: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    variates: Mapping[str, Tensors] = field(default_factory=dict)

    def pack(self) -> RecordDict:
        """As Flower records: tensors per method and part, one MetricRecord per method, one ConfigRecord."""
        config: dict[str, str | int | float] = {
            "site": self.site,
            "version": self.version,
            "status": self.status,
            "reason": self.reason,
            "seconds": self.seconds,
            "run": self.run,
            "round": self.round,
            "attempt": self.attempt,
            "role": self.role,
        }
        privacy = {"epsilon": self.epsilon, "delta": self.delta, "unit": self.unit, "claim": self.claim}
        config.update({key: value for key, value in privacy.items() if value is not None})
        records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {"reply": ConfigRecord(dict(config))}
        for name in self.tensors:
            figures: dict[str, int | float] = dict(self.metrics.get(name, {}))
            if name in self.examples:
                figures["num-examples"] = self.examples[name]
            records[f"metrics.{name}"] = MetricRecord(dict(figures))
        for name, own in self.evaluation.items():
            records[f"evaluation.{name}"] = MetricRecord(dict(own))
        return RecordDict({**records, **_pack_tensors(self.tensors), **_pack_tensors(self.variates, VARIATES)})

    @classmethod
    def unpack(cls, content: RecordDict) -> "Reply":
        """Back from records. Raises MalformedMessage.

        A site is not trusted: text comes back printable and short, names keep to their pattern, figures that are not
        finite are left out, and a privacy account is whole or the reply is refused.
        """
        config = config_of(content, "reply")
        site = config.get("site")
        if config.get("status") not in STATUSES or not isinstance(site, str) or not re.fullmatch(Name, site):
            raise MalformedMessage("the reply names no site or an unknown status")
        role: Role = "predict-only" if config.get("role") == "predict-only" else "train"
        metrics, examples = _unpack_metrics(content)
        epsilon, delta, unit = account(config)
        claim = text(config, "claim")
        return cls(
            site=site,
            version=text(config, "version"),
            status=str(config["status"]),
            reason=text(config, "reason"),
            tensors=_unpack_tensors(content),
            metrics=metrics,
            examples=examples,
            seconds=number(config, "seconds") or 0.0,
            epsilon=epsilon,
            delta=delta,
            unit=unit,
            claim=claim or None,
            run=text(config, "run"),
            round=count(config, "round"),
            attempt=count(config, "attempt"),
            role=role,
            evaluation={name: figures for name, (figures, _) in _figures(content, "evaluation.").items()},
            variates=_unpack_tensors(content, VARIATES),
        )


@lru_cache(maxsize=8)
def _settings(text: str) -> tuple[tuple[str, TrainingSettings], ...]:
    """The settings of each method, which never change: a process with a thousand sites reads the one text once."""
    blocks = json.loads(text)
    return tuple((name, methods.settings_type(name).model_validate(block)) for name, block in blocks.items())


def _pack_tensors(tensors: Mapping[str, Tensors], prefix: str = "") -> dict[str, ArrayRecord]:
    parts: dict[str, dict[str, Tensor]] = {}
    for method, own in tensors.items():
        for name, tensor in own.items():
            parts.setdefault(f"{prefix}{method}/{part_of(name)}", {})[name] = tensor
    return {key: arrays_of(part) for key, part in parts.items()}


def _unpack_tensors(content: RecordDict, prefix: str = "") -> dict[str, dict[str, Tensor]]:
    tensors: dict[str, dict[str, Tensor]] = {}
    for key, record in records_of(content, ArrayRecord).items():
        if key.startswith(VARIATES) != bool(prefix):
            continue
        method, _, part = key.removeprefix(prefix).partition("/")
        if max(map(len, (key, *record))) > LONGEST_NAME or not "".join((key, *record)).isprintable():
            raise MalformedMessage(f"a name among the arrays is longer than {LONGEST_NAME} letters or not printable")
        try:
            unpacked = tensors_of(record)
        except Exception as error:  # bytes of a stranger: whatever NumPy makes of them is their fault
            raise MalformedMessage(f"the arrays of {key!r} cannot be read") from error
        if any(part_of(name) != part for name in unpacked):
            raise MalformedMessage(f"an array of {key!r} belongs to another part")
        tensors.setdefault(method, {}).update(unpacked)
    return tensors


def _unpack_metrics(content: RecordDict) -> tuple[dict[str, dict[str, float]], dict[str, int]]:
    metrics: dict[str, dict[str, float]] = {}
    examples: dict[str, int] = {}
    for method, (figures, images) in _figures(content, "metrics.").items():
        if isinstance(images, int):
            examples[method] = images
        elif images is not None:
            raise MalformedMessage(f"the number of images of {method} is no whole number")
        metrics[method] = figures
    return metrics, examples


def _figures(content: RecordDict, prefix: str) -> dict[str, tuple[dict[str, float], object]]:
    """By method: the finite figures of the records called `prefix` + method, and num-examples as it came."""
    found: dict[str, tuple[dict[str, float], object]] = {}
    for key, record in records_of(content, MetricRecord).items():
        if not key.startswith(prefix):
            continue
        method, figures = key.removeprefix(prefix), dict(record)
        count = figures.pop("num-examples", None)
        if len(figures) > MOST_FIGURES or not all(re.fullmatch(Name, name) for name in (method, *figures)):
            raise MalformedMessage(f"a method's figures are more than {MOST_FIGURES} or have unfit names")
        found[method] = {name: float(value) for name, value in figures.items() if is_finite(value)}, count
    return found
