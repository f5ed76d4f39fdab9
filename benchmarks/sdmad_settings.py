"""How SD-MAD's training settings were chosen: on validation images and held-out categories the demo does not report.

    python -m benchmarks.sdmad_settings

Hard exudates, the category that the demo holds out, is not drawn here at all. One line per setting: AUROC of the
protocols P1, P2 and P3, abnormal against normal, and of the categories left out of training, after pooled training on
five organs.
"""

import itertools
import sys

import torch

from benchmarks.table import heading, row
from fed_fsad.data.phantoms import HELD_OUT, ORGANS, phantom_set
from fed_fsad.data.samples import Sample
from fed_fsad.evaluation.baselines import evaluate_baselines
from fed_fsad.evaluation.protocols import TestBed, evaluate
from fed_fsad.evaluation.results import Evaluation
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.methods import build, settings_type
from fed_fsad.methods.method import part_of
from fed_fsad.methods.training import train
from fed_fsad.residents import rows_of
from fed_fsad.seeds import derive

REPORTED = {("fundus", "hard exudates"), ("brain_mri", "extra-axial mass")}
ORGANS_USED = tuple(task for task in ORGANS if task != "brain_mri")
WITHHELD = tuple(sorted(category for pair in HELD_OUT - REPORTED for category in pair[1:]))
PARTS = (("context",), ("context", "text_adapters", "image_adapters"))
GRID = tuple(itertools.product(PARTS, (1e-3, 4e-3), (48, 144)))
"""(trainable, lr, steps)"""
SELECTIONS = ("none", "support+sample")
SEED = 1
KEYS = ("p1", "p2", "p3", "binary", "held_out")


def images(purpose: str, normal: int, abnormal: int, without: frozenset[tuple[str, str]]) -> tuple[Sample, ...]:
    """Phantoms of the five organs from seeds that no other command uses."""
    seed = derive(SEED, "sdmad validation", purpose)
    sets = (phantom_set(organ, normal, abnormal, i % 4, seed, exclude=without) for i, organ in enumerate(ORGANS_USED))
    return tuple(sample for own in sets for sample in own)


def line(label: str, found: Evaluation) -> str:
    """One line of the table."""
    return row(label, [found.image_auroc.get(key, float("nan")) for key in KEYS])


def main() -> None:
    """Print the table."""
    torch.set_num_threads(2)
    print(heading(KEYS))
    kind = settings_type("sdmad")
    settings = EvaluationSettings(shots=(8,), draws=2, unseen_task="brain_mri", unseen_categories=WITHHELD)
    seen = frozenset(REPORTED | HELD_OUT)
    bed = TestBed(images("pool", 12, 40, seen), images("test", 32, 40, frozenset(REPORTED)))
    hospital = images("train", 40, 40, seen)
    for number, (parts, lr, steps) in enumerate(GRID):
        chosen = kind.model_validate({"lr": lr, "trainable": parts, "withheld": WITHHELD, "support_evidence": "none"})
        method = build("sdmad", chosen, SEED)
        if number == 0:
            for name, found in evaluate_baselines(method, rows_of(method), bed, settings, SEED).items():
                print(line(f"{name} (baseline)", found))
        rows = rows_of(method)(hospital)
        moving = {part_of(name) for name in method.trainable()}
        train(method, chosen, rows, parts=moving, stream=(SEED, "pooled", 1), steps=steps)
        for selection in SELECTIONS:
            scorer = build("sdmad", chosen.model_copy(update={"selection": selection}), SEED)
            scorer.load(method.snapshot())
            label = f"{'+'.join(part.split('_')[0] for part in parts)}, lr {lr:g}, {steps}, {selection}"
            print(line(label, evaluate(scorer, rows_of(scorer), bed, settings, SEED)))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
