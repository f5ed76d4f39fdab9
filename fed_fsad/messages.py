"""The wire contract: what travels between server and site, by name and shape. Nothing else ever does."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeGuard, get_args

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fed_fsad import methods
from fed_fsad.config.schema import Name
from fed_fsad.errors import UserError
from fed_fsad.methods.method import TrainingSettings, part_of
from fed_fsad.privacy.records import Unit

Tensors = Mapping[str, Tensor]
"""Trainable tensors of one method by "part/parameter"."""

STATUSES = ("ok", "refused", "budget_spent", "error")

LONGEST_TEXT = 1000
LONGEST_NAME = 200
MOST_FIGURES = 32
"""What a reply may hold of text and figures: all of it lands in the server's log, its report and on its screen."""


class MalformedMessage(ValueError):
    """A message that does not keep the contract; the text names the first thing wrong with it."""


@dataclass(frozen=True)
class Instruction:
    """What the server asks of a site in one round.

    run: identifies the run across restarts. round: 1-based. rounds: planned in all. cohort: sites asked in this round.
    settings, tensors: by method. insecure_noise_seed: tests only.
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

    def pack(self) -> RecordDict:
        """As Flower records: one ArrayRecord per method and part, one ConfigRecord for the rest."""
        config: dict[str, str | int] = {
            "run": self.run,
            "round": self.round,
            "rounds": self.rounds,
            "seed": self.seed,
            "threads": self.threads,
            "cohort": self.cohort,
            "settings": json.dumps({name: block.model_dump(mode="json") for name, block in self.settings.items()}),
        }
        if self.insecure_noise_seed is not None:
            config["insecure-noise-seed"] = self.insecure_noise_seed
        return RecordDict({"instruction": ConfigRecord(dict(config)), **_pack_tensors(self.tensors)})

    @classmethod
    def unpack(cls, content: RecordDict) -> "Instruction":
        """Back from records. Raises MalformedMessage, also for settings and numbers that make no sense."""
        config = _config(content, "instruction")
        try:
            blocks = json.loads(str(config["settings"]))
            settings = {name: methods.settings_type(name).model_validate(block) for name, block in blocks.items()}
            numbers = {key: int(str(config[key])) for key in ("round", "rounds", "seed", "threads", "cohort")}
            run = str(config["run"])
        except (KeyError, ValueError, AttributeError, UserError) as error:
            raise MalformedMessage(f"the instruction is incomplete ({type(error).__name__})") from error
        if not (1 <= numbers["round"] <= numbers["rounds"] and numbers["threads"] >= 1 and numbers["cohort"] >= 1):
            raise MalformedMessage("the instruction's round, rounds, threads or cohort is out of range")
        noise_seed = config.get("insecure-noise-seed")
        return cls(
            run=run,
            settings=settings,
            tensors=_unpack_tensors(content),
            insecure_noise_seed=noise_seed if isinstance(noise_seed, int) else None,
            **numbers,
        )


@dataclass(frozen=True)
class Reply:
    """What a site answers.

    status: one of STATUSES; any but "ok" carries no tensors. reason: a sentence free of paths and data.
    tensors: only the parts the site trained. examples: images behind each method's update, absent under DP.
    metrics: finite figures the site's policy allows out, per method. seconds: of training. epsilon, delta, unit: what
    the site's ledger has spent so far; all three under DP, none without.
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

    def pack(self) -> RecordDict:
        """As Flower records: tensors per method and part, one MetricRecord per method, one ConfigRecord."""
        config: dict[str, str | int | float] = {
            "site": self.site,
            "version": self.version,
            "status": self.status,
            "reason": self.reason,
            "seconds": self.seconds,
        }
        privacy = {"epsilon": self.epsilon, "delta": self.delta, "unit": self.unit, "claim": self.claim}
        config.update({key: value for key, value in privacy.items() if value is not None})
        records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {"reply": ConfigRecord(dict(config))}
        for name in self.tensors:
            figures: dict[str, int | float] = dict(self.metrics.get(name, {}))
            if name in self.examples:
                figures["num-examples"] = self.examples[name]
            records[f"metrics.{name}"] = MetricRecord(dict(figures))
        return RecordDict({**records, **_pack_tensors(self.tensors)})

    @classmethod
    def unpack(cls, content: RecordDict) -> "Reply":
        """Back from records. Raises MalformedMessage.

        A site is not trusted: text comes back printable and short, names keep to their pattern, figures that are not
        finite are left out, and a privacy account is whole or the reply is refused.
        """
        config = _config(content, "reply")
        site = config.get("site")
        if config.get("status") not in STATUSES or not isinstance(site, str) or not re.fullmatch(Name, site):
            raise MalformedMessage("the reply names no site or an unknown status")
        metrics, examples = _unpack_metrics(content)
        epsilon, delta, unit = _account(config)
        claim = _text(config, "claim")
        return cls(
            site=site,
            version=_text(config, "version"),
            status=str(config["status"]),
            reason=_text(config, "reason"),
            tensors=_unpack_tensors(content),
            metrics=metrics,
            examples=examples,
            seconds=_number(config, "seconds") or 0.0,
            epsilon=epsilon,
            delta=delta,
            unit=unit,
            claim=claim or None,
        )


def arrays_of(tensors: Tensors) -> ArrayRecord:
    """Tensors as an ArrayRecord of their own copies."""
    return ArrayRecord({name: Array(tensor.detach().cpu().numpy().copy()) for name, tensor in tensors.items()})


def tensors_of(arrays: ArrayRecord) -> dict[str, Tensor]:
    """An ArrayRecord as tensors of their own copies, dtype kept."""
    return {name: torch.from_numpy(array.numpy().copy()) for name, array in arrays.items()}


def wire_bytes(contents: Iterable[RecordDict]) -> int:
    """Bytes of all tensors in these records, as serialised; the few settings beside them are left out."""
    return sum(
        len(array.data)
        for content in contents
        for record in content.array_records.values()
        for array in record.values()
    )


def _pack_tensors(tensors: Mapping[str, Tensors]) -> dict[str, ArrayRecord]:
    parts: dict[str, dict[str, Tensor]] = {}
    for method, own in tensors.items():
        for name, tensor in own.items():
            parts.setdefault(f"{method}/{part_of(name)}", {})[name] = tensor
    return {key: arrays_of(part) for key, part in parts.items()}


def _unpack_tensors(content: RecordDict) -> dict[str, dict[str, Tensor]]:
    tensors: dict[str, dict[str, Tensor]] = {}
    for key, record in content.array_records.items():
        method, _, part = key.partition("/")
        if any(len(name) > LONGEST_NAME or not name.isprintable() for name in (key, *record)):
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
    for key, record in content.metric_records.items():
        method = key.removeprefix("metrics.")
        figures = dict(record)
        count = figures.pop("num-examples", None)
        if len(figures) > MOST_FIGURES or not all(re.fullmatch(Name, name) for name in (method, *figures)):
            raise MalformedMessage(f"a method's figures are more than {MOST_FIGURES} or have unfit names")
        if isinstance(count, int):
            examples[method] = count
        elif count is not None:
            raise MalformedMessage(f"the number of images of {method} is no whole number")
        metrics[method] = {name: float(value) for name, value in figures.items() if _is_finite(value)}
    return metrics, examples


def _config(content: RecordDict, key: str) -> ConfigRecord:
    record = content.config_records.get(key)
    if record is None:
        raise MalformedMessage(f"the message has no {key!r} record")
    return record


def _account(config: ConfigRecord) -> tuple[float | None, float | None, str | None]:
    """ε, δ and the unit they protect: all or none, and within their ranges."""
    epsilon, delta, unit = _number(config, "epsilon"), _number(config, "delta"), config.get("unit")
    if epsilon is None and delta is None and unit is None:
        return None, None, None
    if epsilon is None or epsilon < 0 or delta is None or not 0 < delta < 1 or unit not in get_args(Unit):
        raise MalformedMessage("the reply's epsilon, delta and unit are no privacy account")
    return epsilon, delta, str(unit)


def _number(config: ConfigRecord, key: str) -> float | None:
    value = config.get(key)
    if value is None:
        return None
    if not _is_finite(value):
        raise MalformedMessage(f"{key} of the reply is no finite number")
    return float(value)


def _is_finite(value: object) -> TypeGuard[int | float]:
    if isinstance(value, int):
        return not isinstance(value, bool) and abs(value) < 2**63
    return isinstance(value, float) and math.isfinite(value)


def _text(config: ConfigRecord, key: str) -> str:
    """A text as one printable line, so that it cannot steer a terminal or swamp a log; "" when there is none."""
    value = config.get(key, "")
    if not isinstance(value, str):
        raise MalformedMessage(f"{key} of the reply is no text")
    printable = "".join(letter if letter.isprintable() else " " for letter in value[: 4 * LONGEST_TEXT])
    return " ".join(printable.split())[:LONGEST_TEXT]
