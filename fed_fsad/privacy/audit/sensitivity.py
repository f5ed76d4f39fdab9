"""Does one record move the clipped sum by more than C, or what others add to it? And is the noise as strong as said?

Both ask the code that a hospital trains with.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from scipy.stats import chi2
from torch import Tensor

from fed_fsad.data.episodes import Episode
from fed_fsad.privacy.audit.finding import Finding, row
from fed_fsad.privacy.audit.ground import Ground, Tell, flat
from fed_fsad.privacy.audit.mechanism import ScaledNoise
from fed_fsad.privacy.audit.subject import Subject
from fed_fsad.privacy.gradients import clipped_sum
from fed_fsad.privacy.noise import Noise
from fed_fsad.privacy.records import Records

RECORDS = 8
SLACK = 1e-3
"""In units of C: what float32 rounds."""
SURE = 0.999
DRAWS = 4096
"""Values of noise that are looked at, at least."""


def removal(subject: Subject, tell: Tell) -> Finding:
    """The longest shift of the clipped sum when one of the pool's records is removed, in units of C.

    C is lowered until clipping acts on all of them: the bound must hold for every C. Control: the same where an image
    is in several records.
    """
    ground, names = subject.ground, subject.names
    records = ground.records[:RECORDS]
    clip = _acting(subject, ground.natural(names, RECORDS))
    longest = max(float(share.norm()) for share in _shares(ground, records, clip, names, tell))
    defect = _shift_of_shared_images(ground, records, clip, names)
    return row(
        subject,
        "removal",
        claimed="1.00 C",
        found=f"{longest:.2f} C",
        control=f"{defect:.2f} C where images are in several records",
        refuted=longest > 1 + SLACK,
        powerful=defect > 1 + SLACK,
        note=f"{len(records)} records, C = {clip:.3g}",
        figures={"claimed": 1.0, "found": longest, "control": defect, "clip_norm": clip},
    )


def isolation(subject: Subject, tell: Tell) -> Finding:
    """How far a record's share of the sum of all depends on the others, in units of C.

    Its share is what the sum loses without it, and should be the sum of it alone. Control: one clip for the whole
    batch.
    """
    ground, names = subject.ground, subject.names
    records = ground.records[:RECORDS]
    raw = ground.natural(names, RECORDS)
    clip = _acting(subject, raw)
    shares = _shares(ground, records, clip, names, tell)
    alone = [_sum(ground, ground.episode([record]), clip, names) for record in records]
    found = max(float((share - own).norm()) for share, own in zip(shares, alone, strict=True))
    moved = [_cut(raw.sum(0), clip) - _cut(raw.sum(0) - gradient, clip) for gradient in raw]
    defect = max(float((share - _cut(gradient, clip)).norm()) for share, gradient in zip(moved, raw, strict=True))
    return row(
        subject,
        "isolation",
        claimed="0.00 C",
        found=f"{found:.2f} C",
        control=f"{defect:.2f} C with one clip for the whole batch",
        refuted=found > SLACK,
        powerful=defect > SLACK,
        note=f"{len(records)} records, C = {clip:.3g}",
        figures={"claimed": 0.0, "found": found, "control": defect, "clip_norm": clip},
    )


def noise(subject: Subject, tell: Tell) -> Finding:
    """How strong the private step's noise is against σC, with the exact interval of a Gaussian's deviation (chi²).

    Control: halved noise.
    """
    source = subject.noise("noise")
    found = _strength(subject, source, subject.sigma)
    tell(1, 2)
    halved = _strength(subject, ScaledNoise(source, 0.5), subject.sigma)
    tell(2, 2)
    return row(
        subject,
        "noise",
        claimed=f"σ = {subject.sigma:.3g}, all of it",
        found=f"{found[0]:.3f} ({found[1]:.3f} to {found[2]:.3f}) of it",
        control=f"{halved[0]:.3f} of it when halved",
        refuted=found[2] < 1,
        powerful=halved[2] < 1,
        note=f"{SURE:.1%} interval",
        figures={"claimed": 1.0, "found": found[0], "low": found[1], "high": found[2], "control": halved[0]},
    )


def _strength(subject: Subject, source: Noise, sigma: float) -> tuple[float, float, float]:
    """The noise's deviation as a share of σC, and its interval."""
    drawn = [subject.pure_noise(source, subject.names).double() / sigma]
    while sum(map(len, drawn)) < DRAWS:
        drawn.append(subject.pure_noise(source, subject.names).double() / sigma)
    values = torch.cat(drawn)
    squares, count = float(values.square().sum()), len(values)
    low, high = (squares / float(chi2.ppf(tail, count)) for tail in ((1 + SURE) / 2, (1 - SURE) / 2))
    return (squares / count) ** 0.5, low**0.5, high**0.5


def _shares(ground: Ground, records: Records, clip: float, names: tuple[str, ...], tell: Tell) -> Tensor:
    """What the clipped sum loses with each record, [R, P], in units of C."""
    key = ("shares", names, clip)
    if key not in ground.kept:
        whole, found = _sum(ground, ground.episode(records), clip, names), []
        for place in range(len(records)):
            rest = records[:place] + records[place + 1 :]
            found.append(whole - _sum(ground, ground.episode(rest), clip, names))
            tell(place + 1, len(records))
        ground.kept[key] = torch.stack(found)
    return ground.kept[key]


def _acting(subject: Subject, gradients: Tensor) -> float:
    """A C at which every gradient [R, P] but a zero one is clipped."""
    lengths = gradients.norm(dim=1)
    return min(subject.clip_norm, 0.5 * float(lengths[lengths > 0].min())) if bool((lengths > 0).any()) else 1.0


def _sum(ground: Ground, episode: Episode, clip: float, names: Sequence[str]) -> Tensor:
    """The clipped sum, [P], in units of C."""
    total = clipped_sum(ground.method, episode, clip, names).total
    return flat([total[name] for name in names]) / clip


def _cut(gradient: Tensor, clip: float) -> Tensor:
    """A gradient [P] clipped, in units of C."""
    return gradient / max(float(gradient.norm()), clip)


def _shift_of_shared_images(
    ground: Ground, records: Sequence[Sequence[str]], clip: float, names: Sequence[str]
) -> float:
    """The longest shift of the sum when an image is removed that was in several records.

    Without supports: every image is in two. With K: the first images are the supports of all the others.
    """
    wanted = {name for record in records for name in record}
    images = [sample.id for sample in ground.pool.samples if sample.id in wanted]
    images = images[: RECORDS + ground.method.episode.supports]
    whole = _sum(ground, _shared(ground, images), clip, names)
    shifts = [
        whole - _sum(ground, _shared(ground, [other for other in images if other != gone]), clip, names)
        for gone in images[: ground.method.episode.supports + 1]
    ]
    return max(float(shift.norm()) for shift in shifts)


def _shared(ground: Ground, images: Sequence[str]) -> Episode:
    """A batch in which an image is in several records."""
    supports = ground.method.episode.supports
    if not supports:
        twice = ground.episode([[name] for name in images])
        pairs = (torch.cat([part, part]) for part in (twice.query, twice.support))
        query, support = pairs
        return replace(twice, query=query, support=support, record=torch.arange(len(query)))
    rows = ground.pool.select([i for i, sample in enumerate(ground.pool.samples) if sample.id in set(images)])
    every = range(len(rows))
    support = torch.tensor([[other for other in every if other != query][:supports] for query in every])
    return Episode(rows, torch.arange(len(rows)), support, torch.arange(len(rows)))
