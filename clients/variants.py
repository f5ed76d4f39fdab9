"""A round's local training as the federation asks for it: plain, FedProx, SCAFFOLD, FedRep. FedBN is a choice of local
parts, and Ditto's second model is clients/personal.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from clients.local import LocalParts
from clients.site import Site
from fed_fsad.data.features import Rows
from fed_fsad.errors import PolicyRefusal
from fed_fsad.messages import Instruction, MalformedMessage
from fed_fsad.methods.local import ControlVariates, Correction, proximal, uncorrected
from fed_fsad.methods.method import Method
from fed_fsad.methods.training import OnStep, TrainingLog, train
from fed_fsad.privacy.policy import Policy


@dataclass(frozen=True)
class Trained:
    """variates: SCAFFOLD's step of this site's control variates, by tensor; else empty."""

    log: TrainingLog
    variates: Mapping[str, Tensor] = field(default_factory=dict)


def admit_variant(policy: Policy, instruction: Instruction) -> None:
    """Raises PolicyRefusal for training that would let out more than the policy protects."""
    protected = policy.privacy != "off" or instruction.hospital is not None
    if protected and instruction.local.name == "scaffold":
        raise PolicyRefusal(
            "scaffold_under_privacy", "control variates are bare gradients: ask for another federation.local.name"
        )


def pull(instruction: Instruction, method: Method) -> Correction:
    """FedProx's pull towards what was received; nothing for any other training. No data of the site enters it."""
    if instruction.local.name != "fedprox":
        return uncorrected
    return proximal(received(instruction, method), instruction.local.mu)


def received(instruction: Instruction, method: Method) -> dict[str, Tensor]:
    """The server's tensors of a method, where the method computes."""
    device = next(iter(method.trainable().values())).device
    return {name: tensor.to(device) for name, tensor in instruction.tensors[method.name].items()}


def train_here(
    site: Site, instruction: Instruction, method: Method, rows: Rows, parts: tuple[str, ...], on_step: OnStep
) -> Trained:
    """Train `parts` of a method in place from what was received. Raises as `train`, and CheckpointError for a site's
    own state that cannot be trusted.
    """
    settings, stream = instruction.settings[method.name], (instruction.seed, site.name, instruction.round)
    if instruction.local.name == "scaffold":
        return _scaffold(site, instruction, method, rows, parts, on_step)
    if instruction.local.name == "fedrep" and settings.local_parts:
        return _fedrep(site, instruction, method, rows, parts, on_step)
    correct = pull(instruction, method)
    return Trained(train(method, settings, rows, parts=parts, stream=stream, correct=correct, on_step=on_step))


def _fedrep(
    site: Site, instruction: Instruction, method: Method, rows: Rows, parts: tuple[str, ...], on_step: OnStep
) -> Trained:
    """The site's own parts first, with the others as received; then the others, with the site's own parts at rest."""
    settings = instruction.settings[method.name]
    total, head_steps = settings.local_steps, instruction.local.steps_of_head(settings.local_steps)
    head = tuple(part for part in parts if part in settings.local_parts)
    body = tuple(part for part in parts if part not in head)
    phases = [(head, "head", 0, head_steps), (body, "body", head_steps, total - head_steps)]
    for own, name, before, steps in phases if head else phases[1:]:
        stream = (instruction.seed, f"{site.name}/{name}", instruction.round)
        log = train(
            method,
            settings,
            rows,
            parts=own,
            stream=stream,
            steps=steps,
            on_step=lambda done, _, before=before: on_step(before + done, total),  # type: ignore[misc]
        )
    return Trained(log)


def _scaffold(
    site: Site, instruction: Instruction, method: Method, rows: Rows, parts: tuple[str, ...], on_step: OnStep
) -> Trained:
    """The site's variates are those of its last round that entered the server's, and lie beside its other state."""
    settings, stream = instruction.settings[method.name], (instruction.seed, site.name, instruction.round)
    zeros = {name: torch.zeros_like(value) for name, value in received(instruction, method).items()}
    kept = LocalParts(site.state, instruction.run, f"{method.name}.variates")
    before = kept.before(instruction.entered + 1, zeros)
    own = {name: value.to(zeros[name].device) for name, value in before.items()}
    told = instruction.variates.get(method.name, zeros)
    if told.keys() != zeros.keys():
        raise MalformedMessage(f"the control variates sent for {method.name} are not those of its tensors")
    variates = ControlVariates({name: told[name].to(zero.device) for name, zero in zeros.items()}, own)
    log = train(method, settings, rows, parts=parts, stream=stream, correct=variates, on_step=on_step)
    after = variates.next()
    kept.forget(instruction.entered)
    kept.keep(instruction.round, after)
    return Trained(log, {name: (after[name] - own[name]).detach() for name in after})
