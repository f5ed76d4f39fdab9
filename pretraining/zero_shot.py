"""Zero-shot figures of the embedded CLIP on phantoms that neither its corpus nor any config draws."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import torch
from open_clip.model import CLIP
from torch import Tensor

from fed_fsad.data.phantoms import HELD_OUT, ORGANS, STYLES, phantom
from fed_fsad.data.samples import Sample
from fed_fsad.data.signs import load_signs
from fed_fsad.methods.sdmad.backbone import Tokenizer
from fed_fsad.methods.sdmad.selection import mean_scores
from fed_fsad.methods.sdmad.vocabulary import SignTable, build_vocabulary
from pretraining.measure import auroc, pixels
from pretraining.protocol import seen_kinds, validation_seed

Figures = dict[str, float]


@dataclass(frozen=True)
class CategorySet:
    """One organ's test images, [N, 3, S, S] in 0..1, with the categories of each and the organ's signs."""

    images: Tensor
    samples: tuple[Sample, ...]
    table: SignTable


def category_sets(seed: int, count: int, size: int, held_out: bool) -> dict[str, CategorySet]:
    """Per organ 3 x count normals and count images of every seen kind, or of the held-out kind alone; all styles."""
    tables = build_vocabulary([load_signs("phantoms")]).tasks
    sets = {}
    for organ in ORGANS:
        kinds = tuple(kind for task, kind in HELD_OUT if task == organ) if held_out else seen_kinds(organ)
        plan = [((), i) for i in range(3 * count)] + [((kind,), i) for kind in kinds for i in range(count)]
        samples = tuple(phantom(organ, k, i % len(STYLES), validation_seed(seed), i) for k, i in plan)
        sets[organ] = CategorySet(pixels(samples, size), samples, tables[organ])
    return sets


def zero_shot_figures(
    model: CLIP, tokenizer: Tokenizer, mean: Tensor, std: Tensor, sets: Mapping[str, CategorySet]
) -> dict[str, Figures]:
    """Per organ: "binary", AUROC of max_m s_m, abnormal against normal; "category", mean over the shown kinds of the
    AUROC of s_m, that kind against normal; "other", that kind against the other shown kinds (if there are others).

    s_m is the mean logit of m's signs less that of the normal signs; every sign of the organ's categories counts.
    """
    return {
        organ: _figures(model, tokenizer, (held.images.to(mean.device) - mean) / std, held)
        for organ, held in sets.items()
    }


@torch.no_grad()
def _figures(model: CLIP, tokenizer: Tokenizer, images: Tensor, held: CategorySet) -> Figures:
    table = held.table
    tokens = tokenizer([f"a {table.modality} image showing {sign}" for sign in table.signs])
    texts = model.encode_text(tokens.to(images.device), normalize=True)
    seen = torch.cat([model.encode_image(batch, normalize=True) for batch in torch.split(images, 64)])
    scores = mean_scores((seen @ texts.T).cpu(), table.member)
    labels = table.labels([sample.categories for sample in held.samples])
    normal = ~labels.any(1)
    against_normal, against_others = [], []
    for m in labels.any(0).nonzero().squeeze(1).tolist():
        rows = labels[:, m] | normal
        against_normal.append(auroc(labels[rows, m], scores[rows, m]))
        if bool((~labels[~normal, m]).any()):
            against_others.append(auroc(labels[~normal, m], scores[~normal, m]))
    figures = {"binary": auroc(~normal, scores.amax(1)), "category": fmean(against_normal)}
    return figures | ({"other": fmean(against_others)} if against_others else {})


def averaged(figures: Mapping[str, Figures]) -> Figures:
    """The mean over organs of every figure."""
    names = next(iter(figures.values()))
    return {name: fmean(found[name] for found in figures.values()) for name in names}
