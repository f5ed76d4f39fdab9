"""A site's personal model: Ditto's, trained beside the global one in every round, or the last model tuned further.

It lies in the site's state folder and never leaves. Nothing of it enters what is sent, so it costs no privacy; figures
on it leave only where the policy releases figures.
"""

import logging
from collections.abc import Mapping

from torch import Tensor

from clients.local import LocalParts
from clients.received import load_received, without
from clients.site import Site
from clients.variants import received
from fed_fsad.data.episodes import eligible
from fed_fsad.data.features import Rows
from fed_fsad.messages import Instruction
from fed_fsad.methods.local import Correction, proximal, uncorrected
from fed_fsad.methods.method import Method, TrainingSettings, part_of
from fed_fsad.methods.training import train
from fed_fsad.residents import resident, rows_of

log = logging.getLogger("fed_fsad.site")


def ditto(site: Site, instruction: Instruction, method: Method, parts: tuple[str, ...]) -> None:
    """Train the personal model for a round, pulled towards the received tensors (Li et al., 2021, with Adam).

    It starts as the received model does. What the method held is lost. Raises as `train` and LocalParts.
    """
    load_received(site, method, instruction, instruction.round)
    kept = _kept(site, instruction, method)
    mine = kept.before(instruction.round, method.snapshot())
    method.load(mine)
    rows = _rows(site, method, instruction.settings[method.name])
    correct = proximal(received(instruction, method), instruction.local.mu)
    _train(site, instruction, method, rows, parts, "personal", None, correct)
    kept.keep(instruction.round, method.snapshot())


def fine_tune(site: Site, instruction: Instruction) -> None:
    """Tune the last model on this site's own images and keep it, for every method that the policy allows.

    Never raises: the run is over, and what goes wrong stays in the site's own log.
    """
    for name, settings in sorted(instruction.settings.items()):
        if site.policy.methods is not None and not site.policy.methods.get(name):
            continue
        try:
            method = resident(name, settings, instruction.seed)
            load_received(site, method, instruction, instruction.round + 1)
            rows = _rows(site, method, settings)
            if len(rows) > method.episode.supports:
                parts = tuple(dict.fromkeys(part_of(tensor) for tensor in method.trainable()))
                steps = instruction.local.fine_tune
                _train(site, instruction, method, rows, parts, "fine-tune", steps, uncorrected)
                _kept(site, instruction, method).keep(instruction.round, method.snapshot())
        except Exception:
            log.exception("%s: fine-tuning %s failed", site.name, name)


def personal(site: Site, instruction: Instruction, method: Method, next_round: int) -> Mapping[str, Tensor] | None:
    """The personal model as it is before `next_round`, or None where there is none."""
    kept = _kept(site, instruction, method)
    return kept.before(next_round, method.snapshot()) if kept.any_before(next_round) else None


def _kept(site: Site, instruction: Instruction, method: Method) -> LocalParts:
    return LocalParts(site.state, instruction.run, f"{method.name}.personal")


def _rows(site: Site, method: Method, settings: TrainingSettings) -> Rows:
    own = without(site.samples, settings.withheld)
    return rows_of(method)([own[i] for i in eligible(own, method.episode)])


def _train(
    site: Site,
    instruction: Instruction,
    method: Method,
    rows: Rows,
    parts: tuple[str, ...],
    purpose: str,
    steps: int | None,
    correct: Correction,
) -> None:
    stream = (instruction.seed, f"{site.name}/{purpose}", instruction.round)
    train(method, instruction.settings[method.name], rows, parts=parts, stream=stream, steps=steps, correct=correct)
