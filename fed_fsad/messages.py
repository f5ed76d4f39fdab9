"""The wire contract: what travels between server and site, by name and shape. Nothing else ever does."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fed_fsad import methods
from fed_fsad.methods.method import TrainingSettings, part_of

Tensors = Mapping[str, Tensor]
"""Trainable tensors of one method by "part/parameter"."""

STATUSES = ("ok", "refused", "budget_spent", "error")


class MalformedMessage(ValueError):
    """A message that does not keep the contract; the text names the first thing wrong with it."""


@dataclass(frozen=True)
class Instruction:
    """What the server asks of a site in one round.

    run: identifies the run across restarts. round: 1-based. rounds: planned in all. cohort: sites asked in this round.
    settings, tensors: by method. withheld: anomaly categories nobody trains on. insecure_noise_seed: tests only.
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
        """Back from records. Raises MalformedMessage."""
        config = _config(content, "instruction")
        try:
            blocks = json.loads(str(config["settings"]))
            settings = {name: methods.settings_type(name).model_validate(block) for name, block in blocks.items()}
            numbers = {key: int(str(config[key])) for key in ("round", "rounds", "seed", "threads", "cohort")}
            run = str(config["run"])
        except (KeyError, ValueError, AttributeError) as error:
            raise MalformedMessage(f"the instruction is incomplete ({type(error).__name__})") from error
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
    metrics: figures the site's policy allows out, per method. epsilon, delta, unit: spent so far, when under DP.
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
        """Back from records. Raises MalformedMessage."""
        config = _config(content, "reply")
        if config.get("status") not in STATUSES or not isinstance(config.get("site"), str):
            raise MalformedMessage("the reply names no site or an unknown status")
        metrics, examples = _unpack_metrics(content)
        optional = {key: config.get(key) for key in ("epsilon", "delta", "unit", "claim")}
        seconds = config.get("seconds")
        return cls(
            site=str(config["site"]),
            version=str(config.get("version", "")),
            status=str(config["status"]),
            reason=str(config.get("reason", "")),
            tensors=_unpack_tensors(content),
            metrics=metrics,
            examples=examples,
            seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
            epsilon=_number(optional["epsilon"]),
            delta=_number(optional["delta"]),
            unit=None if optional["unit"] is None else str(optional["unit"]),
            claim=None if optional["claim"] is None else str(optional["claim"]),
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
        try:
            unpacked = tensors_of(record)
        except (ValueError, TypeError, EOFError) as error:
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
        if isinstance(count, int):
            examples[method] = count
        metrics[method] = {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}
    return metrics, examples


def _config(content: RecordDict, key: str) -> ConfigRecord:
    record = content.config_records.get(key)
    if record is None:
        raise MalformedMessage(f"the message has no {key!r} record")
    return record


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
