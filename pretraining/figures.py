"""The tables of the cards; one command takes all of them again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from open_clip.model import CLIP

from fed_fsad.assets import asset
from fed_fsad.data.phantoms import ORGANS
from fed_fsad.methods.d24fad.resnet import SmallResNet
from fed_fsad.methods.d24fad.teacher import Teacher
from fed_fsad.methods.sdmad.backbone import Tokenizer, build_embedded, load_backbone, read_config
from pretraining.card import Table
from pretraining.device import CPU
from pretraining.measure import (
    JUDGES,
    PRODUCT,
    DetectionSet,
    detection_figures,
    frozen,
    load_teacher,
    phantom_detection_sets,
    raw_pixel_figures,
)
from pretraining.protocol import validation_seed
from pretraining.real import real_detection_sets
from pretraining.teacher import new_network
from pretraining.zero_shot import averaged, category_sets, zero_shot_figures

REPORTED = "brain_mri"
"""The organ the demo reports on: no choice about the teacher ever looks at it."""
CHOICE_SEED, CARD_SEED = 0, 1
"""Validation seeds: choices are made on one, CLIP's card states the other."""
CARD_SEEDS = (1, 2, 3)
"""Validation seeds of a new teacher's card: other test images and other support draws, averaged."""
OTHERS = tuple(organ for organ in ORGANS if organ != REPORTED)
SeededSets = dict[int, dict[str, DetectionSet]]
Rivals = dict[str, tuple[Teacher, Sequence[str]]]
"""By the prefix of its columns: a network, and which of its scores are measured."""


@dataclass(frozen=True)
class Measures:
    """What a teacher's figures are taken on and stand beside.

    count: test images of each label per phantom organ. seeds: of the test sets and support draws, averaged. real:
    folder of the real sets. large: an ImageNet ResNet-50.
    What is None is left out.
    """

    count: int
    seeds: Sequence[int]
    real: Path | None
    large: Teacher | None


def teacher_tables(network: SmallResNet, seed: int, measures: Measures) -> dict[str, Table]:
    """The teacher's card: AUROC at K = 4, mean over the seeds, beside the same network untrained and raw pixels."""
    rivals: Rivals = {
        "": (frozen(network), tuple(JUDGES)),
        "untrained ": (frozen(new_network(seed)), ("default", "patch")),
    }
    rivals |= {"ResNet-50 ": (measures.large.to(CPU), ("patch",))} if measures.large else {}
    organs = tuple(ORGANS)
    size = PRODUCT.image_size
    phantoms = {s: phantom_detection_sets(organs, validation_seed(s), measures.count, size) for s in measures.seeds}
    tables = {
        "Phantom organs that choices looked at": _beside(rivals, _only(OTHERS, phantoms)),
        "Reported phantom organ, never looked at": _beside(rivals, _only((REPORTED,), phantoms)),
    }
    if measures.real is not None:
        sets = {s: real_detection_sets(measures.real, size, s) for s in measures.seeds}
        tables["Real images, never looked at"] = _beside(rivals, sets)
    return tables


def _only(organs: Sequence[str], sets: SeededSets) -> SeededSets:
    return {seed: {organ: found[organ] for organ in organs} for seed, found in sets.items()}


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


def embedded_tables(
    cards: Mapping[str, Mapping[str, Any]], real: Path | None, large: Teacher | None
) -> dict[str, dict[str, Table]]:
    """The tables of the teacher's and CLIP's cards, taken again from the weights in the wheel."""
    config = read_config(asset("clip/model.json"))
    backbone = load_backbone("embedded", None, 0)
    teacher, clip = cards["teacher"], cards["clip"]
    measures = Measures(teacher["images"], teacher["seeds"], real, large)
    return {
        "teacher": teacher_tables(load_teacher(), teacher["plan"]["seed"], measures),
        "clip": clip_tables(backbone.model, config, backbone.tokenizer, clip["plan"]["seed"], clip["images"]),
    }


def deviations(
    cards: Mapping[str, Mapping[str, Any]], found: Mapping[str, Mapping[str, Table]], tolerance: float
) -> dict[str, tuple[float, float]]:
    """Figures that differ from their card by more than the tolerance: where, to what is stated and what was found.

    What a card does not state is not off.
    """
    off = {}
    for name, tables in found.items():
        for heading, table in tables.items():
            for row, figures in table.items():
                stated_row = cards[name]["figures"].get(heading, {}).get(row, {})
                for column in figures.keys() & stated_row.keys():
                    figure, stated = figures[column], stated_row[column]
                    if not abs(stated - figure) <= tolerance:  # a NaN is off, too
                        off[f"{name} > {heading} > {row} > {column}"] = (stated, figure)
    return off


def _beside(rivals: Rivals, sets: SeededSets) -> Table:
    """Rows: organs and their mean. Columns: the scores of every rival, and raw pixels; means over the seeds."""
    runs = []
    for seed, held in sets.items():
        columns: dict[str, dict[str, float]] = {organ: {} for organ in held}
        for prefix, (rival, judges) in rivals.items():
            for organ, figures in detection_figures(rival, held, seed, judges).items():
                columns[organ] |= {prefix + name: figure for name, figure in figures.items()}
        for organ, figures in raw_pixel_figures(held, seed).items():
            columns[organ] |= figures
        runs.append(columns)
    rows = {o: {c: fmean(run[o][c] for run in runs) for c in columns} for o, columns in runs[0].items()}
    return rows | {"mean": averaged(rows)} if len(rows) > 1 else rows


def _joined(trained: Mapping[str, float], control: Mapping[str, float]) -> dict[str, float]:
    return {**trained, **{f"untrained {name}": figure for name, figure in control.items()}}
