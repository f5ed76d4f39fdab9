"""What stands between a reply and the global model: every update is checked before a strategy sees it."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from torch import Tensor

from fed_fsad.messages import Reply, Tensors
from fed_fsad.methods.method import piece_of

SHARES = ("headline", "low", "high", "personal", "personal_low", "personal_high")
COUNTS = ("shots", "images")
"""What a site's own evaluation tells of a method: its headline with a 95 % interval, the same of its personal model, K,
and images scored.
"""


def misfit(reply: Reply, trains: bool) -> str | None:
    """Why a reply does not fit the role in which the site was asked, or None."""
    if not trains and any(reply.tensors.values()):
        return "it was only asked to evaluate and sends tensors"
    return None


def fault(reply: Reply, current: Mapping[str, Tensors]) -> str | None:
    """Why this reply cannot be aggregated, in one sentence, or None when it can.

    current: the tensors that were sent, by method. A reply may leave out whole pieces, but a piece it sends must be
    whole, of the same names, shapes and dtypes, and finite; counts of images must be positive.
    """
    if not any(reply.tensors.values()):
        return "the reply carries no tensors"
    for method, tensors in reply.tensors.items():
        if method not in current:
            return f"it answers for a method nobody asked for ({method})"
        problem = tensor_fault(tensors, current[method])
        if problem:
            return f"{method}: {problem}"
    for method, count in reply.examples.items():
        if count <= 0:
            return f"{method}: it claims {count} images"
    return None


def evaluation_fault(evaluation: Mapping[str, Mapping[str, float]], asked: Collection[str]) -> str | None:
    """Why a site's own figures cannot be taken down, or None: they are shares, and counts of at least 1."""
    for method, figures in evaluation.items():
        if method not in asked:
            return f"they are of a method nobody asked for ({method})"
        if set(figures) - {*SHARES, *COUNTS} or not {"headline", *COUNTS} <= set(figures):
            return f"{method}: they are not the figures that were asked for"
        if any(not 0 <= figures[name] <= 1 for name in SHARES if name in figures):
            return f"{method}: a figure is not between 0 and 1"
        if any(not 1 <= figures[name] < 2**31 for name in COUNTS):
            return f"{method}: a count is not a number of images"
    return None


def tensor_fault(tensors: Tensors, current: Tensors) -> str | None:
    """Why these are not whole pieces of `current`, of its shapes and dtypes and finite, in one sentence, or None."""
    if tensors.keys() != current.keys() and (problem := _misnamed(tensors, current)):
        return problem
    for name, tensor in tensors.items():
        if tensor.shape != current[name].shape:
            return f"{name} has shape {tuple(tensor.shape)}, not {tuple(current[name].shape)}"
        if tensor.dtype != current[name].dtype:
            return f"{name} is {tensor.dtype}, not {current[name].dtype}"
    if not np.isfinite(_flat(tensors.values())).all():
        broken = next(name for name, tensor in tensors.items() if not np.isfinite(tensor.numpy()).all())
        return f"{broken} holds NaN or infinite values"
    return None


def _misnamed(tensors: Tensors, current: Tensors) -> str | None:
    """Which tensor is not one of `current`, or is missing in a piece of which others were sent, or None."""
    pieces = {piece_of(name) for name in tensors}
    wanted = {name for name in current if piece_of(name) in pieces}
    if extra := sorted(set(tensors) - set(current)):
        return f"unknown tensor {extra[0]}"
    if missing := sorted(wanted - set(tensors)):
        return f"tensor {missing[0]} is missing"
    return None


def update_norm(tensors: Tensors, current: Tensors) -> float:
    """L2 norm of (tensors − current) over all the tensors that were sent."""
    return next(_norms([tensors], current))


def _norms(updates: Iterable[Tensors], current: Tensors) -> Iterator[float]:
    """The length of each update. What several sites in a row leave unchanged of `current` is laid out once."""
    names: list[str] = []
    start = np.zeros(0)
    for tensors in updates:
        if list(tensors) != names:
            names = list(tensors)
            start = _flat((current[name] for name in names), np.float64)
        step = _flat(tensors.values(), np.float64)
        step -= start
        yield math.sqrt(step @ step)


def _flat(tensors: Iterable[Tensor], kind: type[np.float64] | None = None) -> np.ndarray[Any, Any]:
    """All values one after the other, [D], in a dtype that holds each of them, or in `kind`: one pass over many small
    tensors costs less than a pass over each.
    """
    parts = [tensor.numpy().reshape(-1) for tensor in tensors]
    return np.concatenate(parts, dtype=kind) if parts else np.zeros(0)


def outsized(replies: Sequence[Reply], current: Mapping[str, Tensors], factor: float) -> dict[str, str]:
    """Sites whose update of a method is more than `factor` times as long as the cohort's median, with the reason.

    The median needs three replies to mean anything: with fewer, nobody is called an outlier.
    """
    faults: dict[str, str] = {}
    for method, sent in current.items():
        own = {reply.site: reply.tensors[method] for reply in replies if method in reply.tensors}
        norms = dict(zip(own, _norms(own.values(), sent), strict=True))
        if len(norms) < 3:
            continue
        limit = factor * median(norms.values())
        for site, norm in norms.items():
            if norm > limit > 0:
                faults[site] = (
                    f"{method}: its update is {norm:.3g} long, {factor:g} times the cohort's median is {limit:.3g}"
                )
    return faults
