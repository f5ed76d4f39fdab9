"""Valid replies become the next global tensors: Flower's strategies, fed in one order and kept in one dtype."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import strategy as flower
from torch import Tensor

from fed_fsad.config import Federation
from fed_fsad.config.schema import OF_THE_MEAN, Strategy
from fed_fsad.errors import ConfigError, FederationError
from fed_fsad.messages import Reply, Tensors, arrays_of, tensors_of
from fed_fsad.methods.method import piece_of

STRATEGIES: Mapping[str, Callable[..., flower.FedAvg]] = {
    "fedavg": flower.FedAvg,
    "fedavgm": flower.FedAvgM,
    "fedadam": flower.FedAdam,
    "fedyogi": flower.FedYogi,
    "fedmedian": flower.FedMedian,
    "fedtrimmedavg": flower.FedTrimmedAvg,
    "krum": flower.Krum,
    "multikrum": flower.MultiKrum,
}
THE_MEAN_ITSELF = ("fedavg",)
"""Strategies that make of the mean what it is: Flower would only pack it, multiply it by one and unpack it."""
MOMENTS = ("m_t", "v_t")
SAMPLING = ("fraction_", "min_")
"""Arguments that choose whom Flower would ask; the coordinator does that, so here they would do nothing."""

# Flower logs a line for every part of every round; metrics.jsonl says it once per round, by site.
logging.getLogger("flwr").setLevel(logging.WARNING)


def make_strategy(settings: Strategy) -> flower.FedAvg:
    """Flower's strategy object. Raises ConfigError when an option is none that it aggregates by, or impossible."""
    kind = STRATEGIES[settings.name]
    known = [
        name
        for name, parameter in inspect.signature(kind).parameters.items()
        if isinstance(parameter.default, int | float) and not name.startswith(SAMPLING)
    ]
    for option in settings.options:
        if option not in known:
            has = f"it has {', '.join(sorted(known))}" if known else "it takes none"
            raise ConfigError(f"federation.strategy.options: {settings.name} has no option {option!r}; {has}")
    try:
        return kind(**settings.options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"federation.strategy.options: {settings.name} refuses them ({error}); change them"
        ) from error


class Aggregator:
    """One Flower strategy for every piece of every method, so that a site may send some pieces and not others.

    A piece is a whole part, or, where a method names its tensors so, the share of a part that is one category's.
    """

    def __init__(self, settings: Federation) -> None:
        self._settings = settings
        self._strategies: dict[str, flower.FedAvg] = {}
        make_strategy(settings.strategy)

    def combine(self, round_: int, method: str, current: Tensors, replies: Sequence[Reply]) -> dict[str, Tensor]:
        """The next tensors of one method, [the same names, shapes and dtypes as `current`].

        Replies enter in the order of their site names, so the last bits do not depend on who answered first. A piece
        that nobody sent keeps its values. Raises FederationError when the result is not finite.
        """
        ordered = sorted((reply for reply in replies if method in reply.tensors), key=lambda reply: reply.site)
        weights = self._weights(method, ordered)
        merged = {name: tensor.detach().clone() for name, tensor in current.items()}
        for piece in sorted({piece_of(name) for name in current}):
            names = [name for name in current if piece_of(name) == piece]
            senders = [reply for reply in ordered if names[0] in reply.tensors[method]]
            if not senders:
                continue
            if self._settings.strategy.name in THE_MEAN_ITSELF:
                made = _mean(method, names, senders, weights)
            else:
                chosen = self._strategy(f"{method}/{piece}", {name: current[name] for name in names})
                arrays, _ = chosen.aggregate_train(round_, self._updates(method, names, senders, weights))
                made = {} if arrays is None else tensors_of(arrays)
            merged.update({name: value.to(current[name].dtype) for name, value in made.items()})
        if broken := [name for name, value in merged.items() if not bool(torch.isfinite(value).all())]:
            raise FederationError(
                f"round {round_}: aggregating {method} made {broken[0]} NaN or infinite; "
                "change federation.strategy and start again with another --out"
            )
        return merged

    def _updates(
        self, method: str, names: Sequence[str], senders: Sequence[Reply], weights: Mapping[str, int]
    ) -> list[Message]:
        """What Flower's strategy is shown: the mean alone where it would only take it, else every reply.

        The running mean is the strategies' own, in their order and to their last bit, with one reply in memory at a
        time; median, trimmed mean and the Krums need all replies side by side.
        """
        if self._settings.strategy.name in OF_THE_MEAN:
            return [_message(_mean(method, names, senders, weights), 1)]
        return [
            _message({name: reply.tensors[method][name] for name in names}, weights[reply.site]) for reply in senders
        ]

    def state(self) -> dict[str, Tensor]:
        """The strategies' moments, flat, for a checkpoint."""
        flat: dict[str, Tensor] = {}
        for key, chosen in self._strategies.items():
            for moment in MOMENTS:
                for name, value in (getattr(chosen, moment, None) or {}).items():
                    flat[f"{key}|{moment}|{name}"] = torch.from_numpy(np.array(value))
            for index, value in enumerate(getattr(chosen, "momentum_vector", None) or []):
                flat[f"{key}|momentum_vector|{index:06d}"] = torch.from_numpy(np.array(value))
        return flat

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Put the moments of `state()` back."""
        for flat, value in sorted(state.items()):
            key, moment, name = flat.split("|")
            chosen = self._strategies.setdefault(key, make_strategy(self._settings.strategy))
            if moment == "momentum_vector":
                setattr(chosen, moment, [*(getattr(chosen, moment) or []), value.numpy()])
            else:
                setattr(chosen, moment, {**(getattr(chosen, moment) or {}), name: value.numpy()})

    def _weights(self, method: str, replies: Sequence[Reply]) -> dict[str, int]:
        """A site that tells no count (one under DP) weighs as much as the mean of those that do."""
        if self._settings.weighting == "equal":
            return {reply.site: 1 for reply in replies}
        counts = [reply.examples[method] for reply in replies if method in reply.examples]
        typical = max(1, round(sum(counts) / len(counts))) if counts else 1
        return {reply.site: reply.examples.get(method, typical) for reply in replies}

    def _strategy(self, key: str, current: Tensors) -> flower.FedAvg:
        chosen: Any = self._strategies.setdefault(key, make_strategy(self._settings.strategy))
        if isinstance(chosen, flower.FedAvgM):
            chosen.current_arrays = arrays_of(current)
        elif hasattr(chosen, "current_arrays"):
            chosen.current_arrays = {name: tensor.detach().cpu().numpy().copy() for name, tensor in current.items()}
        return chosen  # type: ignore[no-any-return]


def _mean(method: str, names: Sequence[str], senders: Sequence[Reply], weights: Mapping[str, int]) -> dict[str, Tensor]:
    """The weighted mean, [the names' shapes], summed in the replies' dtype and order."""
    whole = sum(weights[reply.site] for reply in senders)
    merged: dict[str, Any] = {}
    for reply in senders:
        for name in names:
            part = reply.tensors[method][name].numpy() * (weights[reply.site] / whole)
            if name in merged:
                merged[name] += part
            else:
                merged[name] = part
    return {name: torch.from_numpy(np.asarray(value)) for name, value in merged.items()}


def _message(tensors: Tensors, weight: int) -> Message:
    content = RecordDict({"arrays": arrays_of(tensors), "metrics": MetricRecord({"num-examples": weight})})
    return Message(content, dst_node_id=0, message_type=MessageType.TRAIN)
