"""The tables of the cards; one command takes all of them again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.model import CLIP
from torch import nn

from fed_fsad.assets import asset
from fed_fsad.data.phantoms import ORGANS
from fed_fsad.methods.sdmad.backbone import Tokenizer, build_embedded, load_backbone, read_config
from pretraining.card import Table
from pretraining.measure import DetectionSet, detection_figures, load_teacher, phantom_detection_sets
from pretraining.protocol import validation_seed
from pretraining.real import real_detection_sets
from pretraining.teacher import SIZE, new_network
from pretraining.zero_shot import averaged, category_sets, zero_shot_figures

REPORTED = "brain_mri"
"""The organ the demo reports on: no choice about the teacher ever looks at it."""
CHOICE_SEED, CARD_SEED = 0, 1
"""Validation seeds: choices are made on one, cards state the other."""
OTHERS = tuple(organ for organ in ORGANS if organ != REPORTED)


def teacher_tables(network: nn.Module, seed: int, count: int, real: Path | None) -> dict[str, Table]:
    """The teacher's card: AUROC at K = 4 beside that of the same network untrained.

    count: test images of each label per phantom organ. real: folder of the real sets, left out when None.
    """
    phantoms = phantom_detection_sets(tuple(ORGANS), validation_seed(CARD_SEED), count, SIZE)
    untrained = new_network(seed)
    tables: dict[str, Table] = {
        "Phantom organs that choices looked at": _beside(network, untrained, {o: phantoms[o] for o in OTHERS}),
        "Reported phantom organ, never looked at": _beside(network, untrained, {REPORTED: phantoms[REPORTED]}),
    }
    if real is not None:
        tables["Real images, never looked at"] = _beside(network, untrained, real_detection_sets(real, SIZE, CARD_SEED))
    return tables


def clip_tables(
    model: CLIP, config: Mapping[str, Any], tokenizer: Tokenizer, seed: int, count: int
) -> dict[str, Table]:
    """CLIP's card: zero-shot AUROC with signs on seen kinds and on held-out ones, beside the untrained model.

    count: images per kind and organ.
    """
    mean, std = (torch.tensor(config["preprocess_cfg"][key]).view(3, 1, 1) for key in ("mean", "std"))
    untrained = build_embedded(config, seed).eval()
    size = config["model_cfg"]["vision_cfg"]["image_size"]
    tables: dict[str, Table] = {}
    for heading, held_out in (("Seen kinds, zero-shot", False), ("Held-out kinds, zero-shot", True)):
        sets = category_sets(CARD_SEED, count, size, held_out)
        trained = zero_shot_figures(model, tokenizer, mean, std, sets)
        control = zero_shot_figures(untrained, tokenizer, mean, std, sets)
        rows = {organ: _joined(trained[organ], control[organ]) for organ in sets}
        tables[heading] = rows | {"mean": averaged(rows)}
    return tables


def embedded_tables(cards: Mapping[str, Mapping[str, Any]], real: Path | None) -> dict[str, dict[str, Table]]:
    """The tables of the teacher's and CLIP's cards, taken again from the weights in the wheel."""
    config = read_config(asset("clip/model.json"))
    backbone = load_backbone("embedded", None, 0)
    teacher, clip = cards["teacher"], cards["clip"]
    return {
        "teacher": teacher_tables(load_teacher(), teacher["plan"]["seed"], teacher["images"], real),
        "clip": clip_tables(backbone.model, config, backbone.tokenizer, clip["plan"]["seed"], clip["images"]),
    }


def deviations(
    cards: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Table]], tolerance: float
) -> dict[str, tuple[float, float]]:
    """Figures that differ from their card by more than the tolerance: where, to what is stated and what was found."""
    off = {}
    for name, tables in found.items():
        for heading, table in tables.items():
            for row, figures in table.items():
                for column, figure in figures.items():
                    stated = cards[name]["figures"][heading][row][column]
                    if not abs(stated - figure) <= tolerance:  # a NaN is off, too
                        off[f"{name} > {heading} > {row} > {column}"] = (stated, figure)
    return off


def _beside(network: nn.Module, untrained: nn.Module, sets: Mapping[str, DetectionSet]) -> Table:
    trained, control = detection_figures(network, sets, CARD_SEED), detection_figures(untrained, sets, CARD_SEED)
    rows = {name: _joined(trained[name], control[name]) for name in sets}
    return rows | {"mean": averaged(rows)} if len(rows) > 1 else rows


def _joined(trained: Mapping[str, float], control: Mapping[str, float]) -> dict[str, float]:
    return {**trained, **{f"untrained {name}": figure for name, figure in control.items()}}
