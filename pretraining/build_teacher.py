"""Making the embedded teacher by either of two routes, or by both in turn: training, figures, card."""

import hashlib
from pathlib import Path

from safetensors.torch import load
from torch import nn

from fed_fsad.methods.d24fad.checkpoint import put_in_place
from fed_fsad.methods.d24fad.resnet import SmallResNet
from fed_fsad.methods.d24fad.teacher import Teacher
from pretraining.card import Card, as_stored, publish
from pretraining.device import best_device
from pretraining.distil import Distillation, distillation_plan
from pretraining.figures import CHOICE_SEED, OTHERS, Measures, teacher_tables
from pretraining.measure import QUICK, detection_figures, frozen, phantom_detection_sets
from pretraining.presets import Run
from pretraining.protocol import validation_seed
from pretraining.targets import make_targets
from pretraining.teacher import SIZE, TeacherTraining, teacher_plan
from pretraining.training import Loss, Plan, Point, train
from pretraining.zero_shot import averaged

FORMULA_TEXT = """
A SmallResNet trained on formula-made images alone: families of layered shapes and textures, none of them an organ.
Every step shows new families, each as four unaltered supports and four queries, half of them altered somewhere (a
foreign region, a displaced piece, a change of brightness, lost structure, a swelling). The loss asks that the distance
to the nearest support patch, at any place and at the same place, tells altered places and images; a light decoder
reads texture, outlines and foreign regions from all four stages.
"""
DISTILLED_TEXT = """
A SmallResNet distilled from an ImageNet ResNet-50 on images that show no organ and no phantom: formula-made scenes and
crops of scikit-learn's two sample photographs, turned, recoloured and half of them grey. The ResNet-50 sees each image
twice as wide and its stages are averaged to the small network's grids. Two losses: a linear map from each small stage,
thrown away afterwards, must give the large stage; and the cosines among random places must be the large network's.
"plan: begun" is the SHA-256 of the weights that it went on from.
"""
FIGURES_TEXT = """
Figures are image AUROC at K = 4 on images of the product's size, mean of three test sets with three support draws each:
"default" is the product's own score, "default pixel" the pixel AUROC of its maps, the others nearest neighbours at any
place, at the same place and of whole images. "untrained" is the same network before training, "raw pixels" the nearest
support in small grey images, "ResNet-50" an ImageNet network shown the same images at the same size. The curve is taken
on smaller images while training: 96 px.
"""
WATCHED = 40
"""Images of each label per organ behind the learning curve."""


def make_teacher(run: Run, measures: Measures) -> str:
    """Train the teacher on formula-made families and write weights and card below `run.out`; returns their SHA-256."""
    training = TeacherTraining(run.seed, run.amount.batch).to(best_device())
    plan = teacher_plan(run.seed, run.amount.steps)
    curve = _trained(training, training.network, training.loss, plan, run)
    return _published(run, f"teacher {run.options}", FORMULA_TEXT, plan, curve, training.network, measures)


def make_distilled(run: Run, large: Teacher, source: str, begin: Path | None, measures: Measures) -> str:
    """Distil the teacher from `large` and write weights and card below `run.out`; returns their SHA-256.

    source: the options that name `large` in the card's command. begin: weights of an earlier teacher to train on from.
    """
    device = best_device()
    begun = begin.read_bytes() if begin else b""
    plan = distillation_plan(run.seed, run.amount.steps, hashlib.sha256(begun).hexdigest() if begun else "")
    folder = run.state(plan.name).with_suffix("")
    targets = make_targets(large.to(device), device, run.seed, run.amount.images, SIZE, folder)
    training = Distillation(targets, plan, run.amount.batch)
    if begun:
        put_in_place(training.network, load(begun), str(begin))
    curve = _trained(training.to(device), training.network, training.loss, plan, run)
    options = f"{run.options} {source}" + (" --begin FILE" if begun else "")
    return _published(run, f"distil {options}", DISTILLED_TEXT, plan, curve, training.network, measures)


def _trained(training: nn.Module, network: SmallResNet, loss: Loss, plan: Plan, run: Run) -> list[Point]:
    watched = phantom_detection_sets(OTHERS, validation_seed(CHOICE_SEED), WATCHED, SIZE)

    def watch() -> Point:
        return averaged(detection_figures(frozen(network), watched, CHOICE_SEED, QUICK))

    return train(training, loss, plan, run.state(plan.name), watch)


def _published(
    run: Run, command: str, text: str, plan: Plan, curve: list[Point], network: SmallResNet, measures: Measures
) -> str:
    tables = teacher_tables(as_stored(network), run.seed, measures)
    card = Card(
        "The embedded teacher",
        text + FIGURES_TEXT,
        f"python -m pretraining {command}",
        plan,
        measures.count,
        measures.seeds,
        tables,
        curve,
    )
    return publish(run.out, "teacher", network.state_dict(), card)
