"""The span test on SD-MAD: an image adapter's gradient lies in the span of the tokens that entered it."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fed_fsad.methods.method import part_of
from fed_fsad.privacy.audit.bounds import Trial, auc_between, auc_limit
from fed_fsad.privacy.audit.finding import Finding, row
from fed_fsad.privacy.audit.ground import MOST_SCALARS, Tell
from fed_fsad.privacy.audit.guessing import FOUND_AUC, coins_sum
from fed_fsad.privacy.audit.subject import Subject
from fed_fsad.seeds import derive, numpy_stream

PART = "image_adapters"
TRIALS = 12
IMAGES = 60
CANDIDATES = 10
_TOKENS = 8
"""An image is judged by so many of its tokens, those that fit best."""


def span(subject: Subject, tell: Tell) -> Finding:
    """Coins decide which of ten images are in a batch; the first adapter's gradient is asked which.

    Only what an image looks like to the frozen model is used, not its label. Control: the adapter's gradient as it is.
    """
    adapter = next(name for name in subject.ground.method.trainable() if part_of(name) == PART)
    alone = (adapter,)
    raw = subject.ground.natural(alone, _affordable(subject, alone))
    width = subject.ground.method.trainable()[adapter].shape[1]
    seed = derive(subject.ground.seed, "audit", "span")
    control = auc_between(_trials(subject, raw, width, lambda total: total), seed)
    limit, found, said = auc_limit(subject.mu), (0.5, 0.5, 0.5), "nothing: no image adapter leaves"
    if subject.terms is not None and adapter in subject.names:
        source = subject.noise("span")
        cut = subject.clipped(subject.ground.natural(subject.names, _affordable(subject, subject.names)))
        own = _columns(subject, adapter)
        found = auc_between(_trials(subject, cut, width, lambda total: subject.released(total, source)[own]), seed)
        said = f"AUC {found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"
    tell(1, 1)
    return row(
        subject,
        "span",
        claimed=f"AUC ≤ {limit:.2f}",
        found=said,
        control=f"AUC {control[0]:.2f} ({control[1]:.2f} to {control[2]:.2f}) not private",
        refuted=found[1] > limit,
        powerful=control[1] > FOUND_AUC,
        note=f"{TRIALS} batches of about {CANDIDATES // 2} images",
        figures={"claimed": limit, "found": found[0], "low": found[1], "high": found[2], "control": control[0]},
    )


def _trials(subject: Subject, gradients: Tensor, width: int, sent: Callable[[Tensor], Tensor]) -> list[Trial]:
    """Batch by batch: who was in, and how well each candidate's tokens fit what was `sent` of the sum [P]."""
    tokens = subject.ground.pool.features["tokens"].cpu()
    place = {sample.id: row for row, sample in enumerate(subject.ground.pool.samples)}
    rows = np.array([place[record[0]] for record in subject.ground.records[: len(gradients)]])
    stream = numpy_stream(subject.ground.seed, "audit", "span")
    found: list[Trial] = []
    for _ in range(TRIALS):
        chosen = stream.permutation(len(rows))
        chosen, public = chosen[:CANDIDATES], chosen[CANDIDATES:]
        coins = stream.integers(2, size=len(chosen)).astype(np.bool_)
        adapter = sent(coins_sum(coins, gradients[chosen])).reshape(-1, width)
        found.append((coins, fit(adapter, tokens[rows[chosen]], tokens[rows[public]])))
    return found


def fit(adapter: Tensor, tokens: Tensor, public: Tensor) -> NDArray[np.float64]:
    """How well each image's tokens [N, L, W] lie in the row space of a gradient [h, W], against public images', [N].

    At most half of the width counts as the space: all of it would hold every token.
    """
    kept = min(adapter.shape[0], adapter.shape[1] // 2)
    space = torch.linalg.svd(adapter.double(), full_matrices=False).Vh[:kept].T

    def inside(images: Tensor) -> Tensor:
        """Minus the log of what of each token lies outside, [N, L]."""
        own = F.normalize(images.double(), dim=2)
        outside: Tensor = 1 - (own @ space).square().sum(dim=2)
        return -(outside + 1e-12).log()

    usual = inside(public)
    surprise = (inside(tokens) - usual.mean(dim=0)) / usual.std(dim=0).clamp_min(1e-12)
    best: NDArray[np.float64] = surprise.topk(min(_TOKENS, tokens.shape[1]), dim=1).values.mean(dim=1).numpy()
    return best


def _affordable(subject: Subject, names: tuple[str, ...]) -> int:
    scalars = sum(subject.ground.method.trainable()[name].numel() for name in names)
    return max(2 * CANDIDATES, min(IMAGES, MOST_SCALARS // scalars))


def _columns(subject: Subject, adapter: str) -> slice:
    """Where a tensor lies among all that leave, laid flat."""
    own = subject.ground.method.trainable()
    start = sum(own[name].numel() for name in subject.names[: subject.names.index(adapter)])
    return slice(start, start + own[adapter].numel())
