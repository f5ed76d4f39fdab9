"""Membership, guessed by somebody who sees what leaves and knows everybody's gradient: the best a server can do.

Who sends the same tensors in every round gets the same clipped sum with fresh noise each time, and adds the answers up.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fed_fsad.privacy.audit.bounds import CONFIDENCE, Trial, auc_between, auc_limit, best_one_run, one_run_epsilon
from fed_fsad.privacy.audit.finding import Finding, row
from fed_fsad.privacy.audit.ground import Tell
from fed_fsad.privacy.audit.subject import Subject
from fed_fsad.seeds import derive, numpy_stream

CANARIES = 500
TARGETS = 32
_COLUMNS = 4096
_FOUND = 1.0
"""ε below which a one-run control has found nothing worth the name."""
FOUND_AUC = 0.6
"""AUC above which a control is found."""
SHADOWS = 48
_LEAST_SPREAD = 1e-6


def canaries(subject: Subject, tell: Tell) -> Finding:
    """A coin for each of 500 synthetic records, one release of those that came up, a guess for each of them.

    A lower bound on ε at 95 % (Steinke, Nasr & Jagielski 2023). Control: clipping without noise.
    """
    gradients = subject.clipped(subject.ground.synthetic(subject.names, CANARIES, tell))
    coins = _coins(subject, "canaries", 1, len(gradients))[0]
    total, gram = coins_sum(coins, gradients), _gram(gradients)
    control = best_one_run(coins, [evidence(gradients, gram, total, 0.0)], subject.delta)
    sent = subject.released(total, subject.noise("canaries"))
    # Guessed twice: by who believes that the noise is there, and by who does not.
    guesses = [evidence(gradients, gram, sent, believed) for believed in (subject.sigma, 0.0)]
    found = best_one_run(coins, guesses, subject.delta)
    most = one_run_epsilon(len(coins), len(coins), len(coins), subject.delta, CONFIDENCE)
    return row(
        subject,
        "canaries",
        claimed=f"ε = {subject.epsilon:.3g}",
        found=f"ε ≥ {found[0]:.2f} ({found[2]} of {found[1]} guesses right)",
        control=f"ε ≥ {control[0]:.2f} ({control[2]} of {control[1]}) clipped only",
        refuted=found[0] > subject.epsilon,
        powerful=control[0] >= _FOUND,
        note=f"{len(coins)} records; cannot refute an ε above {most:.1f}",
        figures={"claimed": subject.epsilon, "found": found[0], "control": control[0], "most": most},
    )


def lira(subject: Subject, tell: Tell, shadows: int = SHADOWS) -> Finding:
    """The likelihood-ratio attack (Carlini et al. 2022) on the pool's own records.

    Every shadow releases the sum over a half of them drawn anew; what a record's presence does to the evidence for it
    is learnt from the other shadows. Control: neither clipped nor noised.
    """
    raw = subject.ground.natural(subject.names, TARGETS)
    coins = _coins(subject, "lira", shadows, len(raw))
    seed = derive(subject.ground.seed, "audit", "lira")
    control = auc_between(_ratios(coins, [evidence(raw, g, s, 0.0) for g, s in _sums(coins, raw)]), seed)
    limit, found = auc_limit(subject.mu), control
    if subject.terms is not None:
        source, cut = subject.noise("lira"), subject.clipped(raw)
        seen = (evidence(cut, g, subject.released(s, source), subject.sigma) for g, s in _sums(coins, cut))
        found = auc_between(_ratios(coins, list(seen)), seed)
    tell(1, 1)
    return row(
        subject,
        "lira",
        claimed=f"AUC ≤ {limit:.2f}",
        found=f"AUC {found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})",
        control=f"AUC {control[0]:.2f} ({control[1]:.2f} to {control[2]:.2f}) not private",
        refuted=found[1] > limit,
        powerful=control[1] > FOUND_AUC,
        note=f"{shadows} shadows, {len(raw)} records",
        figures={"claimed": limit, "found": found[0], "low": found[1], "high": found[2], "control": control[0]},
    )


def evidence(gradients: Tensor, gram: Tensor, total: Tensor, sigma: float) -> NDArray[np.float64]:
    """How likely each of the records [m, P] is in a noisy sum [P], [m]: the best linear guess for tossed coins.

    gram: the gradients' inner products, [m, m]. All in units of C.
    """
    ridge = max(4 * sigma**2, 1e-9 * float(gram.diagonal().mean()), 1e-12)
    reached = gradients.double() @ total.double() + ridge / 2
    solved = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=torch.float64), reached)
    values: NDArray[np.float64] = solved.numpy()
    return values


def coins_sum(coins: NDArray[np.bool_], gradients: Tensor) -> Tensor:
    """The sum of the gradients [m, P] whose coin came up, [P]."""
    return torch.from_numpy(coins).to(gradients.dtype) @ gradients


def _gram(gradients: Tensor) -> Tensor:
    """Inner products [m, m] of [m, P], added up in float64 over a few columns at a time."""
    gram = torch.zeros(len(gradients), len(gradients), dtype=torch.float64)
    for part in torch.split(gradients, _COLUMNS, dim=1):
        gram += part.double() @ part.double().T
    return gram


def _coins(subject: Subject, what: str, runs: int, records: int) -> NDArray[np.bool_]:
    """[runs, records]: who is in."""
    stream = numpy_stream(subject.ground.seed, "audit", what, subject.ground.method.name)
    return stream.integers(2, size=(runs, records)).astype(np.bool_)


def _sums(coins: NDArray[np.bool_], gradients: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Per row of coins the gradients' Gram matrix and the sum of those that are in."""
    gram = _gram(gradients)
    return ((gram, coins_sum(row, gradients)) for row in coins)


def _ratios(coins: NDArray[np.bool_], evidences: Sequence[NDArray[np.float64]]) -> list[Trial]:
    """Per shadow: who was in, and the log likelihood ratio of each record's evidence, learnt from the other shadows."""
    seen = np.stack(evidences)
    ratios = np.zeros_like(seen)
    for shadow in range(len(seen)):
        others = np.arange(len(seen)) != shadow
        for record in range(seen.shape[1]):
            inside = others & coins[:, record]
            outside = others & ~coins[:, record]
            if inside.any() and outside.any():
                means = [float(seen[group, record].mean()) for group in (inside, outside)]
                left = np.where(coins[others, record], *means) - seen[others, record]
                spread = max(float(np.sqrt((left**2).mean())), _LEAST_SPREAD)
                value = seen[shadow, record]
                ratios[shadow, record] = ((value - means[1]) ** 2 - (value - means[0]) ** 2) / (2 * spread**2)
    return list(zip(coins, ratios, strict=True))
