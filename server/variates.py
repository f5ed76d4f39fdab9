"""The server's control variates of SCAFFOLD (Karimireddy et al., 2020)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fed_fsad.messages import Instruction, Reply, Tensors
from server.guard import outsized, tensor_fault

PREFIX = "scaffold"


class Variates:
    """c by method and tensor: the mean of all sites' variates, were they in one place.

    c moves by the sum of the steps that came, over the number of sites that train at all: (|S| / N) times their mean.
    """

    def __init__(self, start: Mapping[str, Tensors], sites: int) -> None:
        """start: the tensors that travel, by method; c starts as zeros of their shapes. sites: N."""
        self._sites = sites
        self._entered: dict[str, int] = {}
        self.sent = {
            method: {name: torch.zeros_like(tensor) for name, tensor in own.items()} for method, own in start.items()
        }

    def add(self, replies: Sequence[Reply]) -> None:
        """Enter a round's steps, in the order of the sites' names."""
        for reply in sorted(replies, key=lambda reply: reply.site):
            if reply.variates:
                self._entered[reply.site] = reply.round
            for method, steps in reply.variates.items():
                own = self.sent[method]
                self.sent[method] = own | {name: own[name] + step / self._sites for name, step in steps.items()}

    def told(self, instruction: Instruction, sites: Sequence[str]) -> dict[str, Instruction]:
        """What each site is sent: the round of its last step that c holds is its own matter, all else is common.

        A site goes on from its variate of that round. So c stays the mean of all variates where an update was rejected
        or came too late. Equal instructions are one object.
        """
        own = {site: self._entered.get(site, 0) for site in sites}
        each = {entered: replace(instruction, entered=entered) for entered in sorted(set(own.values()))}
        return {site: each[entered] for site, entered in own.items()}

    @property
    def entered(self) -> dict[str, int]:
        """By site: the round of its last step that c holds; for a checkpoint."""
        return dict(sorted(self._entered.items()))

    def state(self) -> dict[str, Tensor]:
        """Flat, for a checkpoint."""
        return {f"{PREFIX}|{method}|{name}": value for method, own in self.sent.items() for name, value in own.items()}

    def restore(self, state: Mapping[str, Tensor], entered: Mapping[str, int]) -> None:
        """Put back what `state()` and `entered` gave."""
        self._entered = dict(entered)
        for key, value in state.items():
            _, method, name = key.split("|")
            self.sent[method][name] = value


def kept_of(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A checkpoint's moments, and its variates."""
    ours = {key: value for key, value in state.items() if key.startswith(f"{PREFIX}|")}
    return {key: value for key, value in state.items() if key not in ours}, ours


def variates_fault(reply: Reply, sent: Instruction) -> str | None:
    """Why a reply's variates cannot be used, in one sentence, or None. They go with exactly the tensors it sends."""
    if sent.local.name != "scaffold":
        return "it sends control variates that nobody asked for" if reply.variates else None
    for method, tensors in reply.tensors.items():
        steps = reply.variates.get(method, {})
        if steps.keys() != tensors.keys():
            return f"{method}: its control variates are not those of the tensors it sends"
        if problem := tensor_fault(steps, sent.variates[method]):
            return f"{method}: control variates: {problem}"
    extra = sorted(reply.variates.keys() - reply.tensors.keys())
    return f"{extra[0]}: it sends control variates and no tensors" if extra else None


def outsized_variates(replies: Sequence[Reply], factor: float) -> dict[str, str]:
    """Sites whose step of a method's variates is more than `factor` times as long as the cohort's median."""
    steps = [replace(reply, tensors=reply.variates) for reply in replies]
    zeros = {
        method: {
            name: torch.zeros_like(value) for reply in steps for name, value in reply.tensors.get(method, {}).items()
        }
        for method in sorted({method for reply in steps for method in reply.tensors})
    }
    return {
        site: reason.replace("its update", "the step of its control variates")
        for site, reason in outsized(steps, zeros, factor).items()
    }
