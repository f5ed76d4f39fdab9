"""Sets of phantom images: how many of which anomaly, and how many images show several at once (ours)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from fed_fsad.data.phantoms.organs import ORGANS
from fed_fsad.data.phantoms.world import PhantomSource, draw_patient, kinds_of, phantom
from fed_fsad.data.samples import Sample
from fed_fsad.errors import ConfigError
from fed_fsad.seeds import numpy_stream

LEAST_VISIBLE = 0.5
"""Share of a lesion's change that must still be seen beside the image's other lesions."""
REFERENCE = 48
"""Side in pixels at which visibility is judged."""
ATTEMPTS = 40
"""Patients and partners tried before an image shows its leading anomaly alone."""


def phantom_set(
    organ: str,
    normal: int,
    abnormal: int,
    style: int,
    seed: int,
    pose_jitter: float = 1.0,
    lesion_contrast: float = 1.0,
    exclude: frozenset[tuple[str, str]] = frozenset(),
    multiple: float = 0.0,
) -> list[Sample]:
    """`normal` images, then `abnormal` ones that take turns over the organ's kinds.

    multiple: share of the abnormal images that show two or three anomalies at once, where they can all be seen.
    exclude: (task, category) pairs never drawn, e.g. HELD_OUT. Raises ConfigError when no kind is left to draw, and
    ValueError for a pair that names no anomaly of the phantom world.
    """
    for task, kind in exclude:
        if task not in ORGANS or kind not in ORGANS[task].kinds:
            raise ValueError(f"excluded pair {(task, kind)!r} names no anomaly of the phantom world")
    kinds = [kind for kind in kinds_of(organ) if (organ, kind) not in exclude]
    if abnormal > 0 and not kinds:
        raise ConfigError(f"every anomaly of phantom organ {organ!r} is excluded; ask for 0 abnormal images of it.")
    drawn: Counter[tuple[str, ...]] = Counter()

    def draw(own: tuple[str, ...]) -> Sample:
        drawn[own] += 1
        return phantom(organ, own, style, seed, drawn[own] - 1, pose_jitter, lesion_contrast)

    samples = [draw(()) for _ in range(normal)]
    for place in range(abnormal):
        lead, wanted = _turn(kinds, place, multiple)
        partners = numpy_stream(seed, "phantom partners", organ, place)
        several = (draw(_together(lead, kinds, wanted, partners)) for _ in range(ATTEMPTS if wanted > 1 else 0))
        samples.append(next(filter(all_seen, several), None) or draw((lead,)))
    return samples


def of_patients(samples: Sequence[Sample], images: int | None, organ: str) -> list[Sample]:
    """The samples in their order, every `images` of them called one patient's; None: as they are, patients unknown."""
    if images is None:
        return list(samples)
    return [replace(sample, patient=f"{organ} {place // images}") for place, sample in enumerate(samples)]


def all_seen(sample: Sample) -> bool:
    """Whether no anomaly of a phantom hides another: each changes its own pixels at least half as much as alone.

    A dark metastasis in a fatty liver does not, nor does fluid below a retina that has a hole.
    """
    source = sample.source
    assert isinstance(source, PhantomSource)
    return all(_visible(source, kind) >= LEAST_VISIBLE for kind in source.kinds)


def _turn(kinds: Sequence[str], place: int, share: float) -> tuple[str, int]:
    """The kind whose turn it is, and how many anomalies its image shows; every third image of several has three.

    Every kind leads a `share` of its own images. The kinds are out of step by 1 / len(kinds), so that the share of the
    whole set is kept after every round too (Hermite's identity).
    """
    rounds, turn = divmod(place, len(kinds))
    before, after = (int(count * share + turn / len(kinds) + 1e-9) for count in (rounds, rounds + 1))
    several = 2 + (after % 3 == 0) if after > before else 1
    return kinds[turn], min(len(kinds), several)


def _together(lead: str, kinds: Sequence[str], wanted: int, rng: Generator) -> tuple[str, ...]:
    """`lead` and random others, `wanted` in all, in the organ's order."""
    others = rng.permutation([kind for kind in kinds if kind != lead])[: wanted - 1]
    return tuple(kind for kind in kinds if kind == lead or kind in others)


def _visible(source: PhantomSource, kind: str) -> float:
    others = [other for other in source.kinds if other != kind]
    healthy, alone, without, whole = (
        draw_patient(source, REFERENCE, shown) for shown in ((), (kind,), others, source.kinds)
    )
    usual = np.abs(alone.image - healthy.image)[:, alone.mask].sum()
    return float(np.abs(whole.image - without.image)[:, alone.mask].sum() / usual)
