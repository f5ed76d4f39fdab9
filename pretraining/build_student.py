"""Making the embedded student: training, figures, card."""

from collections.abc import Sequence
from statistics import fmean

import torch
from torch import nn

from fed_fsad.assets import SUMS, asset, read_sums
from fed_fsad.data.phantoms import phantom_set
from fed_fsad.evaluation.bed import draw_support
from fed_fsad.methods.d24fad.backbones import build_teacher
from fed_fsad.methods.d24fad.detector import D24FAD
from fed_fsad.methods.d24fad.settings import TeacherSettings
from fed_fsad.residents import rows_of
from pretraining.card import Card, Table, as_stored, publish
from pretraining.figures import OTHERS, REPORTED
from pretraining.measure import DRAWS, SHOTS, auroc
from pretraining.presets import Run
from pretraining.protocol import validation_seed
from pretraining.student import SETTINGS, StudentTraining, student_plan
from pretraining.training import train
from pretraining.zero_shot import averaged

TEACHER = "teacher/weights.safetensors"
POOL = 24
TEXT = """
What a light student starts from (`student: light`): student and learn-to-weight of the embedded teacher, trained with
the method's own loss at λ = 20 on unaltered images of formula-made families, none of them an organ. "plan: begun" is
the SHA-256 of the teacher's weights; with another embedded teacher the student has to be made again. "tsd" and
"cosine" of the curve are the teacher-student distance and the mean cosine of different images' features, on families
that no step trains on. Figures are image AUROC at K = 4 of D²4FAD's score before any federation, mean of three test
sets with three support draws each; "random" is the student as it was drawn.
"""


def make_student(run: Run, count: int, seeds: Sequence[int]) -> str:
    """Train the student of the embedded teacher and write weights and card below `run.out`; returns their SHA-256."""
    teacher = build_teacher(TeacherSettings(), 0)
    training, untrained = (StudentTraining(teacher, run.seed, run.amount.images, run.amount.batch) for _ in range(2))
    plan = student_plan(run.seed, run.amount.steps, read_sums(asset(SUMS))[TEACHER])
    curve = train(training, training.loss, plan, run.state(plan.name), training.watch)
    both = as_stored(nn.ModuleDict({"student": training.student, "weighting": training.weighting}))
    rivals = {
        name: D24FAD(SETTINGS, teacher, one.student, one.weighting, run.seed)
        for name, one in (("student", training), ("random", untrained))
    }
    tables = {
        "Phantom organs that choices looked at": student_table(rivals, OTHERS, count, seeds),
        "Reported phantom organ, never looked at": student_table(rivals, (REPORTED,), count, seeds),
    }
    command = f"python -m pretraining student {run.options}"
    card = Card("The embedded student", TEXT, command, plan, count, seeds, tables, curve)
    return publish(run.out, "student", both.state_dict(), card)


def student_table(rivals: dict[str, D24FAD], organs: Sequence[str], count: int, seeds: Sequence[int]) -> Table:
    """Rows: organs and their mean. Columns: image AUROC of every rival, mean over the seeds."""
    rows = {
        organ: {name: fmean(_auroc(one, organ, count, seed) for seed in seeds) for name, one in rivals.items()}
        for organ in organs
    }
    return rows | {"mean": averaged(rows)} if len(rows) > 1 else rows


def _auroc(detector: D24FAD, organ: str, count: int, seed: int) -> float:
    samples = phantom_set(organ, POOL + count, count, style=0, seed=validation_seed(seed))
    pool, rows = samples[:POOL], rows_of(detector)
    test = rows(samples[POOL:])
    labels = torch.tensor([int(not sample.is_normal) for sample in test.samples])
    found = []
    for draw in range(DRAWS):
        bank = detector.fit_support(rows(draw_support(pool, organ, SHOTS, draw, seed, per_category=False)), organ)
        parts = [test.select(range(at, min(at + 32, len(test)))) for at in range(0, len(test), 32)]
        scores = torch.cat([detector.score(part.features, bank).image for part in parts])
        found.append(auroc(labels, scores))
    return fmean(found)
