"""How D²4FAD's training settings were chosen: leave one phantom organ out, on validation organs only.

    python -m benchmarks.d24fad_settings

Brain MRI, the organ the demo reports on, is neither trained on nor tested here. One line per setting: image AUROC at
K = 4 on every validation organ after pooled training on the others, beside the untrained student and the frozen
teacher's nearest neighbours.
"""

import itertools
import sys
from collections.abc import Sequence

import torch

from benchmarks.table import heading, row
from fed_fsad.data.phantoms import ORGANS, phantom_set
from fed_fsad.data.samples import Sample
from fed_fsad.evaluation.baselines import evaluate_baselines
from fed_fsad.evaluation.protocols import TestBed, evaluate
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.methods import build, settings_type
from fed_fsad.methods.method import Method, part_of
from fed_fsad.methods.training import train
from fed_fsad.residents import rows_of
from fed_fsad.seeds import derive

REPORTED = "brain_mri"
ORGANS_USED = tuple(task for task in ORGANS if task != REPORTED)
STEPS = (48, 192)
GRID = tuple(itertools.product((0.1, 1.0, 10.0), (1e-4, 1e-3)))
"""(tsd_weight, lr)"""
SEED = 1
IMAGES = 40


def bed(organ: str) -> TestBed:
    """Supports and test images of one organ, from seeds that no other command uses."""
    pool = phantom_set(organ, 12, 0, 0, derive(SEED, "validation pool"))
    return TestBed(tuple(pool), tuple(phantom_set(organ, IMAGES, IMAGES, 0, derive(SEED, "validation"))))


def normals(organs: Sequence[str]) -> list[Sample]:
    """Normal training images of several organs, each from a scanner of its own."""
    images = (phantom_set(organ, IMAGES, 0, style % 4, derive(SEED, "train")) for style, organ in enumerate(organs))
    return [sample for own in images for sample in own]


def with_mean(label: str, values: Sequence[float]) -> str:
    """One line of the table, with the mean at its end."""
    return row(label, (*values, sum(values) / len(values)))


def headline(method: Method, organ: str) -> float:
    """Image AUROC at K = 4 of the tensors that `method` holds."""
    settings = EvaluationSettings(shots=(4,), unseen_task=organ)
    return evaluate(method, rows_of(method), bed(organ), settings, SEED).headline


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(heading((*ORGANS_USED, "mean")))
    kind = settings_type("d24fad")
    published = {"score": "d24fad", "image_score": "max"}
    method = build("d24fad", kind.model_validate(published), SEED)
    frozen = {
        organ: evaluate_baselines(method, rows_of(method), bed(organ), EvaluationSettings(shots=(4,)), SEED)
        for organ in ORGANS_USED
    }
    for name in frozen[ORGANS_USED[0]]:
        print(with_mean(f"{name} (baseline)", [frozen[organ][name].headline for organ in ORGANS_USED]))
    print(with_mean("untrained student", [headline(method, organ) for organ in ORGANS_USED]))
    for (weight, lr), steps in itertools.product(GRID, STEPS):
        settings = kind.model_validate({**published, "tsd_weight": weight, "lr": lr})
        values = []
        for organ in ORGANS_USED:
            trained = build("d24fad", settings, SEED)
            rows = rows_of(trained)(normals([other for other in ORGANS_USED if other != organ]))
            parts = {part_of(name) for name in trained.trainable()}
            train(trained, settings, rows, parts=parts, stream=(SEED, "pooled", 1), steps=steps)
            values.append(headline(trained, organ))
        print(with_mean(f"tsd_weight {weight:g}, lr {lr:g}, {steps} steps", values))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
