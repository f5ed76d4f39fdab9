"""How D²4FAD's default score was chosen: residuals and their sums on validation organs, then once on the test tasks.

    python -m benchmarks.d24fad_scores [--real DIR --resnet FILE]

Brain MRI and the sets in DIR (one data folder each) are test tasks: they are in the last tables alone, and nothing was
chosen on them. FILE: ResNet-50 v1 weights for a second teacher. Tables are Markdown; docs/scores.md reads them.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from benchmarks.d24fad_settings import ORGANS_USED, REPORTED, normals
from fed_fsad.data.features import Rows
from fed_fsad.data.phantoms import phantom_set
from fed_fsad.data.samples import Sample
from fed_fsad.data.scan import scan
from fed_fsad.data.settings import FolderData
from fed_fsad.evaluation.baselines import THUMBNAIL, Neighbours
from fed_fsad.evaluation.bed import TestBed
from fed_fsad.evaluation.detection import plan
from fed_fsad.evaluation.metrics import auroc
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.evaluation.trials import Panel, run_trials, separately
from fed_fsad.methods.d24fad import Settings, build
from fed_fsad.methods.d24fad.detector import D24FAD
from fed_fsad.methods.d24fad.residuals import RESIDUALS, SCORES, WEIGHTED_SUPPORT, one_by_one
from fed_fsad.methods.d24fad.scoring import ImageScore, score_images
from fed_fsad.methods.method import Scores, SupportBank, part_of
from fed_fsad.methods.training import train
from fed_fsad.residents import rows_of
from fed_fsad.seeds import derive, numpy_stream

SEEDS, DRAWS, SHOTS = (1, 2, 3), 4, (4, 2, 8)
POOL, TEST, CAP = 24, 40, 30
"""Normals to draw supports from, test images of each label, test images of each class of a real set."""
Recipe = tuple[Mapping[str, float], ImageScore]
"""A map as weights of residuals, and what an image's score is of it."""
Found = dict[str, dict[int, list[float]]]
"""AUROCs by detector and K: one per seed and draw, in the same order for all."""
FUSED = dict.fromkeys(SCORES["fused"], 1.0)
FUSED_ROW = " + ".join(FUSED) + " (fused)"
BASELINES: dict[str, Recipe] = {"knn": ({"patches": 1}, "max"), "position_nn": ({"positions": 1}, "max")}
FROZEN: dict[str, Recipe] = {
    **BASELINES,
    "patches": ({"patches": 1}, "topk"),
    "near_patches": ({"near_patches": 1}, "topk"),
    **{name: ({name: 1}, "topk") for name in RESIDUALS if "patches_" in name},
    FUSED_ROW: (FUSED, "topk"),
    "fused, maximum of the map": (FUSED, "max"),
    "fused, mean of the map": (FUSED, "mean"),
    "patches_1 + patches_2": ({"patches_1": 1, "patches_2": 1}, "topk"),
    "patches_2 + standard_patches_2": ({"patches_2": 1, "standard_patches_2": 1}, "topk"),
    "fused + patches": ({"patches": 1, **FUSED}, "topk"),
    "fused + patches_3": ({"patches_3": 1, **FUSED}, "topk"),
    "fused + standard_patches_1": ({"standard_patches_1": 1, **FUSED}, "topk"),
    "fused + positions": ({"positions": 1, **FUSED}, "topk"),
    "patches + standard_patches_1": ({"patches": 1, "standard_patches_1": 1}, "topk"),
}
STUDENT: dict[str, Recipe] = {
    "d24fad": ({WEIGHTED_SUPPORT: 1}, "max"),
    "teacher_student": ({"teacher_student": 1}, "topk"),
    "student_patches": ({"student_patches": 1}, "topk"),
    "fused": (FUSED, "topk"),
    "fused + d24fad": ({WEIGHTED_SUPPORT: 1, **FUSED}, "topk"),
    "fused + 0.03 teacher_student": ({"teacher_student": 0.03, **FUSED}, "topk"),
    "fused + 0.1 teacher_student": ({"teacher_student": 0.1, **FUSED}, "topk"),
    "fused + student_patches": ({"student_patches": 1, **FUSED}, "topk"),
}
CALIBRATED = "fused, each map divided by the supports' own"
STUDENTS: dict[str, tuple[dict[str, Any], int]] = {
    "untrained": ({}, 0),
    "λ = 0.1": ({}, 48),
    "λ = 1": ({"tsd_weight": 1}, 48),
    "λ = 1, stop-gradient": ({"tsd_weight": 1, "stop_gradient": True}, 48),
    "λ = 0.1, sqrt_c": ({"l2w_scale": "sqrt_c"}, 48),
    "λ = 0.1, 192 steps": ({}, 192),
}
"""Changed settings, and pooled steps on the other validation organs."""


def phantom_bed(organ: str, seed: int) -> TestBed:
    """Supports and test images of one organ, from seeds that no other command uses."""
    pool = phantom_set(organ, POOL, 0, 0, derive(seed, "scores pool"))
    return TestBed(tuple(pool), tuple(phantom_set(organ, TEST, TEST, 0, derive(seed, "scores"))))


def real_bed(root: Path) -> TestBed:
    """Of a data set on disk: POOL normal training images, at most CAP test images of each class, drawn by name."""
    found = scan(FolderData(kind="folder", root=root, task=root.name))
    classes: dict[tuple[str, ...], list[Sample]] = {}
    for sample in found.test:
        classes.setdefault(sample.categories, []).append(sample)
    test = [x for name in sorted(classes) for x in _drawn(classes[name], CAP, root.name)]
    return TestBed(tuple(_drawn([x for x in found.train if x.is_normal], POOL, root.name)), tuple(test))


def _drawn(samples: Sequence[Sample], count: int, task: str) -> list[Sample]:
    order = numpy_stream(0, "scores", task).permutation(len(samples))[:count]
    return [sorted(samples, key=lambda sample: sample.id)[i] for i in order]


def panel(method: D24FAD, recipes: Mapping[str, Recipe], whole: bool) -> Panel:
    """The recipes; with `whole` also the calibrated fusion and what compares whole images."""
    residuals = sorted({name for weights, _ in recipes.values() for name in weights})

    def ready(support: Rows, task: str) -> Callable[[Rows], dict[str, Scores]]:
        bank = method.fit_support(support, task)
        pixels = Neighbours(_thumbnails(support), support.samples)
        pooled = Neighbours(method.embedding(support.features), support.samples)
        own = {name: _own_maximum(method, bank, name) for name in FUSED} if whole and len(bank) > 1 else {}

        def judge(queries: Rows) -> dict[str, Scores]:
            maps = {name: method.maps(queries.features, bank, [name]) for name in residuals}
            found = {name: score_images(_sum(maps, weights), how) for name, (weights, how) in recipes.items()}
            if own:
                calibrated = _sum(maps, {name: 1 / value for name, value in own.items()})
                found[CALIBRATED] = score_images(calibrated, "topk")
            if whole:
                found["raw_pixels"] = pixels.score(_thumbnails(queries))
                found["knn_pooled"] = pooled.score(method.embedding(queries.features))
            return found

        return judge

    return separately(ready)


def _own_maximum(method: D24FAD, bank: SupportBank, residual: str) -> float:
    """The mean over supports of the highest value of a support's map against the others."""
    teacher = {name: tensor for name, tensor in bank.tensors.items() if name[0] in "fe"}
    others = [bank.remove([name]) for name in bank.ids]
    pairs = zip(one_by_one(teacher), others, strict=True)
    return fmean(float(method.maps(view, rest, [residual]).max()) for view, rest in pairs)


def _sum(maps: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    return torch.stack([weight * maps[name] for name, weight in weights.items()]).sum(dim=0)


def _thumbnails(rows: Rows) -> Tensor:
    return torch.stack([_thumbnail(sample) for sample in rows.samples])


@cache
def _thumbnail(sample: Sample) -> Tensor:
    return torch.from_numpy(sample.source.image(THUMBNAIL)).mean(dim=0)


def measure(method: D24FAD, bed: TestBed, shots: Sequence[int], seed: int, made: Panel) -> Found:
    """The AUROC of every detector of a panel, by K and draw, on the one task of a bed."""
    draws = plan(bed, EvaluationSettings(shots=tuple(shots), draws=DRAWS), seed)
    draws = [replace(draw, maps=False) for draw in draws]
    found: Found = {}
    for name, trials in run_trials(made, rows_of(method), bed, draws).items():
        for trial in trials:
            found.setdefault(name, {}).setdefault(trial.draw.shots, []).append(auroc(trial.labels, trial.image))
    return found


def merge(parts: Sequence[Found]) -> Found:
    """The same detectors' AUROCs, one part after the other."""
    return {name: {k: [x for part in parts for x in part[name][k]] for k in parts[0][name]} for name in parts[0]}


def table(columns: Mapping[str, Found], shots: int, against: str | None = None) -> Iterator[str]:
    """Rows by detector: mean AUROC per task, over tasks, and the lowest task; `against`: differences to that one."""
    names = list(next(iter(columns.values())))
    yield f"| K = {shots} | {' | '.join(columns)} | mean | lowest |"
    yield "|---" * (len(columns) + 3) + "|"
    for name in names:
        means = [fmean(found[name][shots]) for found in columns.values()]
        cells = [f"{value:.3f}" for value in (*means, fmean(means), min(means))]
        yield f"| {name} | {' | '.join(cells)} |"
    if against is not None:
        gaps = [_paired(found, shots, against) for found in columns.values()]
        yield f"| fused − {against}, 95 % interval | {' | '.join(gaps)} | | |"


def _paired(found: Found, shots: int, against: str) -> str:
    """Mean difference over seeds and draws with its t interval; draws share a seed's test images, so it is narrow."""
    gaps = [a - b for a, b in zip(found[FUSED_ROW][shots], found[against][shots], strict=True)]
    half = stats.t.ppf(0.975, len(gaps) - 1) * stdev(gaps) / len(gaps) ** 0.5
    return f"{fmean(gaps):+.3f} ± {half:.3f}"


def students() -> Iterator[str]:
    """What a student adds, by how it was trained, at K = 4: mean over validation organs and lowest organ."""
    yield "| student | score | " + " | ".join(ORGANS_USED) + " | mean | lowest |"
    yield "|---" * (len(ORGANS_USED) + 4) + "|"
    for label, (changes, steps) in STUDENTS.items():
        columns = {organ: merge([_student(changes, steps, organ, seed) for seed in SEEDS[:2]]) for organ in ORGANS_USED}
        for line in list(table(columns, 4))[2:]:
            yield f"| {label} {line}"


def _student(changes: Mapping[str, Any], steps: int, organ: str, seed: int) -> Found:
    settings = Settings.model_validate({"tsd_weight": 0.1, **changes})
    method = build(settings, seed)
    if steps:
        rows = rows_of(method)(normals([other for other in ORGANS_USED if other != organ]))
        parts = {part_of(name) for name in method.trainable()}
        train(method, settings, rows, parts=parts, stream=(seed, "scores", 1), steps=steps)
    return measure(method, phantom_bed(organ, seed), (4,), seed, panel(method, STUDENT, whole=False))


def teachers(resnet: Path | None) -> dict[str, D24FAD]:
    """The embedded teacher and, with its weights, ResNet-50 v1, both on images of the default size."""
    found = {"embedded": build(Settings(), 0)}
    if resnet is not None:
        teacher = {"name": "resnet50", "weights": str(resnet), "variant": "v1"}
        found["ResNet-50"] = build(Settings.model_validate({"teacher": teacher}), 0)
    return found


def validation(method: D24FAD, shots: int) -> dict[str, Found]:
    """Every frozen recipe on every validation organ."""
    made = panel(method, FROZEN, whole=True)
    return {
        organ: merge([measure(method, phantom_bed(organ, seed), (shots,), seed, made) for seed in SEEDS])
        for organ in ORGANS_USED
    }


def reported(method: D24FAD, beds: Mapping[str, TestBed], shots: int) -> dict[str, Found]:
    """The default beside the baselines on the test tasks."""
    recipes = {**BASELINES, FUSED_ROW: (FUSED, "topk")}
    made = panel(method, {**recipes, "published, untrained student": STUDENT["d24fad"]}, whole=True)
    return {task: measure(method, bed, (shots,), 0, made) for task, bed in beds.items()}


def say(lines: Iterator[str]) -> None:
    """Print a table, line by line as it is made."""
    for line in lines:
        print(line, flush=True)
    print()


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path)
    parser.add_argument("--resnet", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = teachers(options.resnet)
    print("## Validation organs, embedded teacher\n")
    for shots in SHOTS:
        say(table(validation(known["embedded"], shots), shots, "knn"))
    print("## Test tasks\n")
    folders = sorted(path for path in options.real.iterdir() if path.is_dir()) if options.real else []
    beds = {REPORTED: phantom_bed(REPORTED, 0)} | {f"{path.name} (real)": real_bed(path) for path in folders}
    for name, method in known.items():
        print(f"{name}\n")
        for shots in SHOTS if name == "embedded" else SHOTS[:1]:
            say(table(reported(method, beds, shots), shots, "knn"))
    print("## What a student adds on validation organs\n")
    say(students())


if __name__ == "__main__":
    main()
