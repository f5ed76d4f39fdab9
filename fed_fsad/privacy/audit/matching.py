"""Gradient matching on D²4FAD: rebuild what the student saw of one record from the record's gradient."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fed_fsad.data.episodes import Episode
from fed_fsad.data.features import Rows
from fed_fsad.privacy.audit.bounds import rate_between, success_limit
from fed_fsad.privacy.audit.finding import Finding, row
from fed_fsad.privacy.audit.ground import Ground, Tell, flat
from fed_fsad.privacy.audit.subject import Subject
from fed_fsad.seeds import torch_stream

TRIALS = 5
STEPS = 15
DEEPEST = "e4"
_LR = 0.1
_LEAST = 1e-9


def matching(subject: Subject, tell: Tell) -> Finding:
    """Records that are alone in their batch, rebuilt: is the record's first image recognised among all others?

    Likeness is what is left when the mean of other images is taken off both. Without the record the right image comes
    first by chance alone, and with it only as much oftener as the terms allow (after Balle, Cherubin & Hayes 2022).
    Control: the gradient of all parts as it is.
    """
    ground = subject.ground
    everything = tuple(ground.method.trainable())
    records = ground.records[:TRIALS]
    control, found = [], []
    source = subject.noise("matching")
    for number, record in enumerate(records):
        plain = _split(flat_gradient(ground, record, everything), ground, everything)
        control.append(_recognised(ground, record, rebuild(ground, record, plain)))
        if subject.terms is not None:
            own = subject.clipped(flat_gradient(ground, record, subject.names)[None])[0]
            seen = _split(subject.released(own, source), ground, subject.names)
            found.append(_recognised(ground, record, rebuild(ground, record, seen)))
        tell(number + 1, len(records))
    return _row(subject, control, found or control)


def _row(subject: Subject, control: Sequence[tuple[bool, float]], found: Sequence[tuple[bool, float]]) -> Finding:
    others = len(subject.ground.pool) - subject.ground.method.episode.supports
    limit = success_limit(subject.mu, 1 / others)
    hits, controls = (sum(first for first, _ in tries) for tries in (found, control))
    means = [sum(likeness for _, likeness in tries) / len(tries) for tries in (found, control)]
    return row(
        subject,
        "matching",
        claimed=f"recognised at most {limit:.0%}",
        found=f"{hits} of {len(found)} recognised (mean NCC {means[0]:.2f})",
        control=f"{controls} of {len(control)} (mean NCC {means[1]:.2f}) not private",
        refuted=rate_between(hits, len(found))[0] > limit,
        powerful=rate_between(controls, len(control))[0] > 1 / others,
        note=f"records alone in a batch, among {others} images",
        figures={"claimed": limit, "found": means[0], "found_rate": hits / len(found), "control": means[1]},
    )


def flat_gradient(ground: Ground, record: Sequence[str], names: Sequence[str]) -> Tensor:
    """A record's gradient over `names`, [P]."""
    parameters = [ground.method.trainable()[name] for name in names]
    loss = ground.method.losses(ground.episode([record])).mean()
    return flat(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))


def rebuild(ground: Ground, record: Sequence[str], seen: Mapping[str, Tensor]) -> Tensor:
    """Maps [K + 1, C, H, W] of features whose gradient points where the `seen` one does, tensor by tensor.

    After Geiping et al. 2020, from the mean of other images. Where the first kernel's gradient was seen, its columns
    span the features that entered it, and the search stays in that span (ours).
    """
    episode, public = ground.episode([record]), _others(ground, record)
    seen = {name: tensor for name, tensor in seen.items() if float(tensor.norm()) > _LEAST}
    mean = {name: tensor.mean(dim=0) for name, tensor in public.items()}
    spread = {name: tensor.std(dim=0) + 1e-3 for name, tensor in public.items()}
    stream = torch_stream(ground.seed, "audit", "rebuild")
    steps = {
        name: (0.1 * torch.randn(len(record), *tensor.shape, generator=stream).to(tensor)).requires_grad_()
        for name, tensor in mean.items()
    }
    inside = _span_of(seen, mean[DEEPEST], len(record))
    adam = torch.optim.Adam(list(steps.values()), lr=_LR)
    for _ in range(STEPS):
        features = _features(mean, spread, steps, inside)
        loss = _mismatch(ground, episode, features, seen)
        for step, gradient in zip(steps.values(), torch.autograd.grad(loss, list(steps.values())), strict=True):
            step.grad = gradient
        adam.step()
    return _features(mean, spread, steps, inside)[DEEPEST].detach()


def _mismatch(ground: Ground, episode: Episode, features: dict[str, Tensor], seen: Mapping[str, Tensor]) -> Tensor:
    """1 - cosine between the gradient of guessed features and the one seen, the mean over tensors."""
    guessed = Episode(Rows(features, episode.rows.samples), episode.query, episode.support, episode.record)
    parameters = [ground.method.trainable()[name] for name in seen]
    loss = ground.method.losses(guessed).mean()
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True, materialize_grads=True)
    pairs = zip(gradients, seen.values(), strict=True)
    return torch.stack([1 - F.cosine_similarity(g.flatten(), s.flatten(), dim=0) for g, s in pairs]).mean()


def _features(
    mean: Mapping[str, Tensor], spread: Mapping[str, Tensor], steps: Mapping[str, Tensor], inside: Tensor | None
) -> dict[str, Tensor]:
    features = {name: mean[name] + spread[name] * step for name, step in steps.items()}
    if inside is not None:
        features[DEEPEST] = torch.einsum("cd,ndhw->nchw", inside, features[DEEPEST])
    return features


def _span_of(seen: Mapping[str, Tensor], deepest: Tensor, images: int) -> Tensor | None:
    """The projection [C, C] on the columns of the first kernel's gradient, None where it was not seen."""
    channels, height, width = deepest.shape
    kernels = [tensor for tensor in seen.values() if tensor.dim() > 1 and len(tensor) == channels]
    if not kernels:
        return None
    columns: Tensor = torch.linalg.svd(kernels[0].flatten(1), full_matrices=False).U
    columns = columns[:, : min(images * height * width, channels // 2)]
    return columns @ columns.T


def _recognised(ground: Ground, record: Sequence[str], rebuilt: Tensor) -> tuple[bool, float]:
    """Whether the record's first image is nearer to a rebuilt map than all others are, and its NCC."""
    public = _others(ground, record)[DEEPEST]
    (target,) = (i for i, sample in enumerate(ground.pool.samples) if sample.id == record[0])
    wanted = torch.cat([ground.pool.features[DEEPEST][[target]], public]) - public.mean(dim=0)
    pairs = _standard(wanted) @ _standard(rebuilt - public.mean(dim=0)).T
    own, *strangers = pairs.amax(dim=1).tolist()
    return own > max(strangers), own


def _standard(maps: Tensor) -> Tensor:
    """[N, ...] to [N, P], every row of mean 0 and length 1."""
    values = maps.flatten(1)
    return F.normalize(values - values.mean(dim=1, keepdim=True))


def _others(ground: Ground, record: Sequence[str]) -> Mapping[str, Tensor]:
    return ground.pool.select([i for i, sample in enumerate(ground.pool.samples) if sample.id not in record]).features


def _split(values: Tensor, ground: Ground, names: Sequence[str]) -> dict[str, Tensor]:
    """A flat vector [P] as the tensors of those names."""
    shapes = [ground.method.trainable()[name].shape for name in names]
    pieces = torch.split(values, [shape.numel() for shape in shapes])
    return {name: piece.reshape(shape) for name, piece, shape in zip(names, pieces, shapes, strict=True)}
