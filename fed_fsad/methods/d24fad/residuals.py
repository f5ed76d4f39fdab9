"""Residuals: what a query differs in from its supports, position by position, and the scores that are made of them.

A view is what both sides of a residual are given: the teacher's "f1" to "f3" and the student's "value1" to "value3",
each [N, C, H, W].
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fed_fsad.methods.d24fad.scoring import position_distance

TEACHER = ("f1", "f2", "f3")
STUDENT = ("value1", "value2", "value3")
REACH = 2
"""How many cells of stage 2 a patch may have moved in `near_patches`."""
MOST_CELLS = 32
"""Cells a side above which a stage is averaged down."""
TINY = 1e-6
View = Mapping[str, Tensor]
Residual = Callable[[View, View], list[Tensor]]
"""From a query [B, ...] and supports [K, ...] to distances [B, H_i, W_i]."""


def one_by_one(view: View) -> Iterator[View]:
    """[B, ...] as B times [1, ...]: every patch of a batch beside every patch of a bank would not fit into memory.

    A graph that is exported takes them all at once, because it must not know how many there are.
    """
    if torch.compiler.is_exporting():
        return iter((view,))
    rows = len(next(iter(view.values())))
    return ({name: tensor[i : i + 1] for name, tensor in view.items()} for i in range(rows))


def joint(view: View, names: Sequence[str] = ("f2", "f3")) -> Tensor:
    """[N, H W, C + C'], of length 1: the second, coarser stage brought to the first one's grid."""
    fine, coarse = (view[name] for name in names)
    coarse = F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
    return F.normalize(torch.cat([fine, coarse], dim=1).flatten(2).transpose(1, 2), dim=2)


def nearest(patches: Tensor, bank: Tensor, reach: int | None = None) -> Tensor:
    """Cosine distance of every patch to the nearest patch of any support: [B, P, C] and [K, P, C] to [B, √P, √P].

    reach: cells a patch may have moved, up and down and to both sides; None: anywhere.
    """
    similarity = torch.einsum("bpc,kqc->bpkq", patches, bank)
    side = round(patches.shape[1] ** 0.5)
    if reach is not None:
        place = torch.arange(side * side, device=patches.device)
        row, column = place // side, place % side
        far = ((row[:, None] - row).abs() > reach) | ((column[:, None] - column).abs() > reach)
        similarity = similarity.masked_fill(far[:, None], -1)
    return (1 - similarity.amax(dim=(2, 3))).reshape(-1, side, side)


def averaged(stage: Tensor) -> Tensor:
    """A stage of more than 32 x 32 cells averaged down: every patch meets every other."""
    return F.avg_pool2d(stage, -(-stage.shape[-1] // MOST_CELLS))


def cells(stage: Tensor) -> Tensor:
    """[N, C, H, W] to patches [N, H W, C] of length 1."""
    return F.normalize(stage.flatten(2).transpose(1, 2), dim=2)


def standardised(query: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """Both sides of a stage, [N, C, H, W], each channel in the supports' mean and deviation.

    Without it the few loud channels of a stage hide the others (ours).
    """
    mean, deviation = support.mean(dim=(0, 2, 3), keepdim=True), support.std(dim=(0, 2, 3), keepdim=True) + TINY
    return (query - mean) / deviation, (support - mean) / deviation


def patches(query: View, support: View) -> list[Tensor]:
    """Nearest patch of any support, teacher stages 2 and 3; after PatchCore (Roth et al. 2022), without coreset."""
    return [nearest(joint(query), joint(support))]


def near_patches(query: View, support: View) -> list[Tensor]:
    """As `patches`, but no further away than two cells of stage 2."""
    return [nearest(joint(query), joint(support), REACH)]


def stage_patches(name: str) -> Residual:
    """Nearest patch of any support in one stage of the teacher."""

    def residual(query: View, support: View) -> list[Tensor]:
        return [nearest(cells(averaged(query[name])), cells(averaged(support[name])))]

    return residual


def standard_patches(name: str) -> Residual:
    """As `stage_patches`, the channels standardised by the supports (ours)."""

    def residual(query: View, support: View) -> list[Tensor]:
        one, other = standardised(averaged(query[name]), averaged(support[name]))
        return [nearest(cells(one), cells(other))]

    return residual


def student_patches(query: View, support: View) -> list[Tensor]:
    """Nearest patch of any support in the student's stages 2 and 3."""
    return [nearest(joint(query, STUDENT[1:]), joint(support, STUDENT[1:]))]


def positions(query: View, support: View) -> list[Tensor]:
    """Nearest support at the same position, teacher stages 1 to 3."""
    each = ([position_distance(query[name], one[None]) for one in support[name]] for name in TEACHER)
    return [torch.stack(distances).amin(dim=0) for distances in each]


def teacher_student(query: View, support: View) -> list[Tensor]:
    """What the student does not give back of the teacher's stages 1 to 3; the supports have no say."""
    return [position_distance(query[name], query[own]) for name, own in zip(TEACHER, STUDENT, strict=True)]


RESIDUALS: dict[str, Residual] = {
    "patches": patches,
    "near_patches": near_patches,
    **{f"patches_{i}": stage_patches(name) for i, name in enumerate(TEACHER, start=1)},
    **{f"standard_patches_{i}": standard_patches(name) for i, name in enumerate(TEACHER, start=1)},
    "student_patches": student_patches,
    "positions": positions,
    "teacher_student": teacher_student,
}
"""By name; `patches_2` is of the teacher's stage 2 alone."""
WEIGHTED_SUPPORT = "weighted_support"
"""The published residual, which the detector makes: it alone needs learn-to-weight."""
SCORES: dict[str, tuple[str, ...]] = {
    "fused": ("patches_1", "patches_2", "standard_patches_2"),
    "d24fad": (WEIGHTED_SUPPORT,),
    **{name: (name,) for name in RESIDUALS},
}
"""The residuals of every score; its map is the sum of theirs."""
OF_STUDENT = {WEIGHTED_SUPPORT, "student_patches", "teacher_student"}
