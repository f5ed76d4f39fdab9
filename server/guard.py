"""What stands between a reply and the global model: every update is checked before a strategy sees it."""

import math
from collections.abc import Collection, Mapping, Sequence
from statistics import median

import torch

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
    pieces = {piece_of(name) for name in tensors}
    wanted = {name for name in current if piece_of(name) in pieces}
    if extra := sorted(set(tensors) - set(current)):
        return f"unknown tensor {extra[0]}"
    if missing := sorted(wanted - set(tensors)):
        return f"tensor {missing[0]} is missing"
    for name, tensor in tensors.items():
        if tensor.shape != current[name].shape:
            return f"{name} has shape {tuple(tensor.shape)}, not {tuple(current[name].shape)}"
        if tensor.dtype != current[name].dtype:
            return f"{name} is {tensor.dtype}, not {current[name].dtype}"
        if not bool(torch.isfinite(tensor).all()):
            return f"{name} holds NaN or infinite values"
    return None


def update_norm(tensors: Tensors, current: Tensors) -> float:
    """L2 norm of (tensors − current) over all the tensors that were sent."""
    squares = (float((tensor.double() - current[name].double()).square().sum()) for name, tensor in tensors.items())
    return math.sqrt(sum(squares))


def outsized(replies: Sequence[Reply], current: Mapping[str, Tensors], factor: float) -> dict[str, str]:
    """Sites whose update of a method is more than `factor` times as long as the cohort's median, with the reason.

    The median needs three replies to mean anything: with fewer, nobody is called an outlier.
    """
    faults: dict[str, str] = {}
    for method, sent in current.items():
        norms = {reply.site: update_norm(reply.tensors[method], sent) for reply in replies if method in reply.tensors}
        if len(norms) < 3:
            continue
        limit = factor * median(norms.values())
        for site, norm in norms.items():
            if norm > limit > 0:
                faults[site] = (
                    f"{method}: its update is {norm:.3g} long, {factor:g} times the cohort's median is {limit:.3g}"
                )
    return faults
