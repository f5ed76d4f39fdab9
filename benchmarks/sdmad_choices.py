"""How SD-MAD's training, its use of the supports and its calibration were chosen: on validation images only.

    python -m benchmarks.sdmad_choices [--seeds 3]

Brain MRI and hard exudates, which the demo reports, are not drawn here at all. Five other organs are; one category of
four of them is left out of training and of the supports, and a quarter of the abnormal images show several anomalies.
Prints four Markdown tables: baselines and readouts, training, K, and calibration.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fed_fsad.data.features import Rows
from fed_fsad.data.phantoms import HELD_OUT, ORGANS, phantom_set
from fed_fsad.data.samples import Sample
from fed_fsad.evaluation import categories
from fed_fsad.evaluation.bed import RowsOf, TestBed
from fed_fsad.evaluation.label_table import multi_label, tabulate
from fed_fsad.evaluation.metrics import auroc, macro
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.evaluation.trials import Trial, run_trials, separately
from fed_fsad.methods import build
from fed_fsad.methods.method import Scores, part_of
from fed_fsad.methods.sdmad.detector import SdMad
from fed_fsad.methods.sdmad.settings import Settings
from fed_fsad.methods.training import train
from fed_fsad.residents import rows_of
from fed_fsad.seeds import derive

REPORTED = {("fundus", "hard exudates"), ("brain_mri", "extra-axial mass")}
ORGANS_USED = tuple(task for task in ORGANS if task != "brain_mri")
WITHHELD = tuple(sorted(category for pair in HELD_OUT - REPORTED for category in pair[1:]))
SEVERAL = 0.25
SHOTS = (1, 2, 4, 8)
DRAWS = 2
DEFAULT = {"lr": 4e-3, "withheld": WITHHELD}
STEPS = 48
TRAININGS: Mapping[str, tuple[dict[str, object], int]] = {
    "default: all parts, β = 1, lr 4e-3, 48 steps": ({}, STEPS),
    "context only": ({"trainable": ("context",)}, STEPS),
    "β = 0, no L_inter": ({"inter_weight": 0.0}, STEPS),
}
READOUTS = [
    (how, evidence) for evidence in ("none", "probe") for how in ("none", "support", "sample", "support+sample")
]
CHOSEN = "sample, probe"
COLUMNS = ("P1", "P2", "P3", "mAP", "binary", "held out", "mean")
Figures = list[float]
Detectors = Mapping[str, SdMad]


@dataclass(frozen=True)
class World:
    """What one seed draws: the server's images and a hospital's."""

    seed: int
    bed: TestBed
    hospital: tuple[Sample, ...]


def world(seed: int) -> World:
    """Phantoms of the five organs from seeds that no other command uses."""

    def images(purpose: str, normal: int, abnormal: int, without: frozenset[tuple[str, str]]) -> tuple[Sample, ...]:
        stream = derive(seed, "sdmad choices", purpose)
        sets = (
            phantom_set(organ, normal, abnormal, place % 4, stream, exclude=without, multiple=SEVERAL)
            for place, organ in enumerate(ORGANS_USED)
        )
        return tuple(sample for own in sets for sample in own)

    seen = frozenset(REPORTED | HELD_OUT)
    bed = TestBed(images("pool", 12, 36, seen), images("test", 30, 40, frozenset(REPORTED)))
    return World(seed, bed, images("train", 24, 32, seen))


def trained(place: World, changes: dict[str, object], steps: int) -> SdMad:
    """A method after pooled training; 0 steps leave it as it is drawn."""
    settings = Settings.model_validate(DEFAULT | changes)
    method = build("sdmad", settings, place.seed)
    assert isinstance(method, SdMad)
    parts = {part_of(name) for name in method.trainable()}
    train(method, settings, rows_of(method)(place.hospital), parts=parts, stream=(place.seed, "pooled", 1), steps=steps)
    return method


def readouts(place: World, method: SdMad) -> Detectors:
    """The trained method with every use of its supports."""
    found = {}
    for selection, evidence in READOUTS:
        chosen = Settings.model_validate(DEFAULT | {"selection": selection, "support_evidence": evidence})
        other = build("sdmad", chosen, place.seed)
        assert isinstance(other, SdMad)
        other.load(method.snapshot())
        found[f"{selection}, {evidence}"] = other
    return found


def trials_of(place: World, detectors: Detectors, rows: RowsOf, shots: int, extra: bool) -> dict[str, list[Trial]]:
    """Every detector's trials at K = `shots`; with `extra` also the untrained baselines, and calibrated scores of all.

    A calibrated score is the log odds of the probability.
    """
    settings = EvaluationSettings(shots=(shots,), draws=DRAWS, unseen_task="brain_mri", unseen_categories=WITHHELD)

    def ready(support: Rows, task: str) -> Callable[[Rows], dict[str, Scores]]:
        banks = {name: method.fit_support(support, task) for name, method in detectors.items()}

        def judge(queries: Rows) -> dict[str, Scores]:
            found = {name: method.score(queries.features, banks[name]) for name, method in detectors.items()}
            if not extra:
                return found
            own = {
                f"{name}, calibrated": Scores(
                    scores.image,
                    categories=detectors[name].probabilities(scores, banks[name]).double().logit(),
                    names=scores.names,
                )
                for name, scores in found.items()
            }
            any_method = next(iter(detectors.values()))
            return found | own | any_method.baselines(queries.features, support, task)

        return judge

    return run_trials(separately(ready), rows, place.bed, categories.plan(place.bed, settings, place.seed))


def figures(trials: Sequence[Trial]) -> Figures:
    """COLUMNS: AUROC of P1, P2 and P3, mAP, binary, held out, and the mean of P1, P2 and held out."""
    tables = [tabulate(trial, WITHHELD) for trial in trials]
    areas = {key: macro([x for table in tables for x in table.areas(key)])[0] for key in ("p1", "p2", "p3", "held_out")}
    binary = macro([auroc(trial.labels, trial.image) for trial in trials])[0]
    mean = (areas["p1"] + areas["p2"] + areas["held_out"]) / 3
    return [areas["p1"], areas["p2"], areas["p3"], multi_label(tables)["map"], binary, areas["held_out"], mean]


def calibration(trials: Sequence[Trial]) -> Figures:
    """Brier score, expected calibration error in ten bins, and macro F1 at p > 1/2, of σ(score) of seen categories."""
    tables = [tabulate(trial, WITHHELD) for trial in trials]
    truth, given = [], []
    for table in tables:
        rows = ~table.truth[:, table.unseen].any(axis=1)
        truth.append(table.truth[rows][:, ~table.unseen].ravel())
        given.append(1 / (1 + np.exp(-table.scores[rows][:, ~table.unseen].ravel())))
    y, p = np.concatenate(truth), np.concatenate(given)
    bins = np.minimum((p * 10).astype(int), 9)
    error = sum(abs(p[bins == b].mean() - y[bins == b].mean()) * (bins == b).mean() for b in np.unique(bins))
    return [float(((p - y) ** 2).mean()), float(error), multi_label(tables)["macro_f1"]]


def table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[Figures]]) -> Iterator[str]:
    """A Markdown table of means over seeds, their standard deviation beside the last column."""
    yield f"\n| {title} | {' | '.join(columns)} | sd |\n|---{'|---' * (len(columns) + 1)}|"
    for name, found in rows.items():
        values = np.array(found)
        deviation = f"{values[:, -1].std(ddof=1):.3f}" if len(values) > 1 else "–"
        yield f"| {name} | {' | '.join(f'{x:.3f}' for x in values.mean(axis=0))} | {deviation} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sdmad_choices")
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    found: dict[str, dict[str, list[Figures]]] = defaultdict(lambda: defaultdict(list))
    for seed in range(1, seeds + 1):
        _measure(world(seed), found, lambda text: print(text, file=sys.stderr, flush=True))
    for line in (
        *table("K = 8", COLUMNS, found["readouts"]),
        *table(f"training, {CHOSEN}, K = 8", COLUMNS, found["training"]),
        *table("K", COLUMNS, found["shots"]),
        *table("probabilities", ("Brier", "ECE", "macro F1"), found["calibration"]),
    ):
        print(line)


def _measure(place: World, found: dict[str, dict[str, list[Figures]]], say: Callable[[str], None]) -> None:
    own: SdMad | None = None
    for label, (changes, steps) in TRAININGS.items():
        method = trained(place, changes, steps)
        own = own or method
        trials = trials_of(place, {CHOSEN: method}, rows_of(method), max(SHOTS), False)
        found["training"][label].append(figures(trials[CHOSEN]))
        say(f"seed {place.seed}: {label}")
    assert own is not None
    detectors = readouts(place, own)
    for shots in SHOTS:
        trials = trials_of(place, {CHOSEN: detectors[CHOSEN]}, rows_of(own), shots, True)
        for name in (CHOSEN, "zero_shot", "linear_probe"):
            found["shots"][f"{name}, K = {shots}"].append(figures(trials[name]))
        for name, words in ((CHOSEN, "σ(s)"), (f"{CHOSEN}, calibrated", "calibrated")):
            found["calibration"][f"{words}, K = {shots}"].append(calibration(trials[name]))
    for name in ("zero_shot", "zero_shot_names", "linear_probe"):
        found["readouts"][f"{name} (untrained)"].append(figures(trials[name]))
    for name, own_trials in trials_of(place, detectors, rows_of(own), max(SHOTS), False).items():
        found["readouts"][name].append(figures(own_trials))


if __name__ == "__main__":
    main()
