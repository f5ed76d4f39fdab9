"""What each defect of D²4FAD's public code adds to its figures, or takes from them, on the same images and seeds.

    python -m benchmarks.d24fad_defects

Leave one phantom organ out, the embedded teacher, K = 4: image AUROC of the published score with everything mended,
then with one defect at a time, then with all of them. Defects of the protocol (a, b, c, i) live here alone: no config
of a run can ask for them. Those of the method (d, e, g, h, j) are settings.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.ndimage import gaussian_filter1d

from fed_fsad.data.features import Rows
from fed_fsad.data.phantoms import ORGANS, phantom_set
from fed_fsad.data.samples import Sample
from fed_fsad.evaluation.bed import draw_support
from fed_fsad.evaluation.metrics import auroc
from fed_fsad.methods.d24fad import Settings, build
from fed_fsad.methods.d24fad.detector import D24FAD
from fed_fsad.methods.method import part_of
from fed_fsad.methods.training import train
from fed_fsad.residents import rows_of
from fed_fsad.seeds import derive

LEFT_OUT = ("chest_xray", "liver_ct", "brain_mri")
SEEDS = (1, 2, 3)
STEPS, EPOCHS, DRAWS, SHOTS = 24, 4, 3, 4
TRAIN, POOL, TEST = 24, 12, 30
"""Normal training images per organ, images to draw supports from, test images of each label."""
BATCH, BATCH_SIGMA = 16, 4.0
HONEST: dict[str, Any] = {"score": "d24fad", "image_score": "max"}
NORM: dict[str, Any] = {"norm": "batch", "batches": "apart", "statistics": "running"}
FIXED: dict[str, Any] = {"episodes": "fixed"}
BARE: dict[str, Any] = {"teacher": {"input_norm": "none"}}
SATURATED: dict[str, Any] = {"l2w_scale": "sqrt_c"}
UNTRAINED: dict[str, Any] = {"train_l2w": False}

Maps = NDArray[np.float32]
"""[N, S, S] of all test images in file order."""


@dataclass(frozen=True)
class Variant:
    """settings: beyond the mended method. The others: how its maps become a figure."""

    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    batch3d: bool = False
    best_test: bool = False
    drop_last: bool = False
    path_labels: bool = False


VARIANTS = (
    Variant("everything mended"),
    Variant("a: blur across the batch, files in order of class", batch3d=True),
    Variant("b: best epoch by test AUROC", best_test=True),
    Variant("c: last incomplete test batch dropped", drop_last=True),
    Variant("d: BatchNorm, batches of mixed tasks, calls apart", NORM),
    Variant("e: supports drawn once, with replacement", FIXED),
    Variant("g: no input normalisation", BARE),
    Variant("h: softmax over √C", SATURATED),
    Variant("i: abnormal folder called Ungood, label from the path", path_labels=True),
    Variant("j: φ not trained", UNTRAINED),
    Variant("a, b, c, d, e, g, h: today's public code", NORM | FIXED | BARE | SATURATED, True, True, True),
    Variant("and j: its first months", NORM | FIXED | BARE | SATURATED | UNTRAINED, True, True, True),
)


def path_of(sample: Sample) -> PurePosixPath:
    """Where the image would lie: normal ones in `good`, all others in `Ungood`."""
    folder = "good" if sample.is_normal else "Ungood"
    return PurePosixPath("scans", sample.task, "test", folder, "-".join(sample.categories), sample.source.name)


def batch3d(maps: Maps) -> Maps:
    """Maps that are smooth in their planes, blurred over the batch axis as well, in batches of 16 in file order."""
    batches = [maps[at : at + BATCH] for at in range(0, len(maps), BATCH)]
    return np.concatenate([gaussian_filter1d(batch, BATCH_SIGMA, axis=0) for batch in batches])


def figure(variant: Variant, epochs: Sequence[Sequence[Maps]], samples: Sequence[Sample]) -> float:
    """The AUROC that a reader of this variant would report; epochs: the maps of every draw after every epoch."""
    if variant.path_labels:
        labels = np.array(["good" not in str(path_of(sample)) for sample in samples])
    else:
        labels = np.array([not sample.is_normal for sample in samples])
    kept = len(samples) - len(samples) % BATCH if variant.drop_last else len(samples)

    def reported(maps: Maps) -> float:
        shown = batch3d(maps) if variant.batch3d else maps
        return auroc(labels[:kept], shown[:kept].max(axis=(1, 2)))

    means = [fmean(reported(maps) for maps in draws) for draws in epochs]
    return max(means) if variant.best_test else means[-1]


def curve(settings: Settings, organ: str, seed: int, watched: bool) -> tuple[list[list[Maps]], tuple[Sample, ...]]:
    """Train on all other organs; the maps of every draw after every epoch (after the last one alone unless watched),
    and the test images in file order.
    """
    detector = build(settings, seed)
    rows = rows_of(detector)
    others = [other for other in ORGANS if other != organ]
    normal = [
        sample
        for style, other in enumerate(others)
        for sample in phantom_set(other, TRAIN, 0, style % 4, derive(seed, "defects", "train"))
    ]
    pool = phantom_set(organ, POOL, 0, 0, derive(seed, "defects", "pool"))
    drawn = phantom_set(organ, TEST, TEST, 0, derive(seed, "defects", "test"))
    test = tuple(sorted(drawn, key=lambda sample: str(path_of(sample))))
    supports = [draw_support(pool, organ, SHOTS, draw, seed, per_category=False) for draw in range(DRAWS)]
    epochs: list[list[Maps]] = []

    def after(done: int, total: int) -> None:
        if done == total or (watched and done % (total // EPOCHS) == 0):
            epochs.append([maps_of(detector, rows(support), rows(test)) for support in supports])

    parts = {part_of(name) for name in detector.trainable()}
    train(detector, settings, rows(normal), parts=parts, stream=(seed, "defects", 1), steps=STEPS, on_step=after)
    return epochs, test


def maps_of(detector: D24FAD, support: Rows, test: Rows) -> Maps:
    """The published maps, [N, S, S], each smoothed by itself."""
    bank = detector.fit_support(support, support.samples[0].task)
    parts = [test.select(range(at, min(at + BATCH, len(test)))) for at in range(0, len(test), BATCH)]
    maps = [detector.score(part.features, bank).map for part in parts]
    return torch.cat([part for part in maps if part is not None]).numpy()


def settings_of(variant: Variant) -> Settings:
    """The mended method with the variant's own settings."""
    return Settings.model_validate({**HONEST, **variant.settings})


def measure(organs: Sequence[str], seeds: Sequence[int]) -> dict[str, dict[tuple[str, int], float]]:
    """Label to (organ, seed) to AUROC; variants of equal settings share one training."""
    found: dict[str, dict[tuple[str, int], float]] = {variant.label: {} for variant in VARIANTS}
    kinds = list(dict.fromkeys(settings_of(variant) for variant in VARIANTS))
    cells = [(settings, organ, seed) for organ in organs for seed in seeds for settings in kinds]
    for settings, organ, seed in track(cells, "training", console=Console(stderr=True)):
        mine = [variant for variant in VARIANTS if settings_of(variant) == settings]
        epochs, samples = curve(settings, organ, seed, watched=any(variant.best_test for variant in mine))
        for variant in mine:
            found[variant.label][organ, seed] = figure(variant, epochs, samples)
    return found


def table(found: Mapping[str, Mapping[tuple[str, int], float]], organs: Sequence[str], seeds: Sequence[int]) -> str:
    """Means over the seeds per organ; mean and deviation over the seeds of the organs' mean; change from the first."""
    lines = [f"| | {' | '.join(organs)} | mean ± sd | change ± sd |", "|---" * (len(organs) + 3) + "|"]
    honest = found[VARIANTS[0].label]
    for label, cells in found.items():
        if any(math.isnan(value) for value in cells.values()):
            lines.append(f"| {label} | {' | '.join(['undefined'] * len(organs))} | undefined | |")
            continue
        columns = [f"{fmean(cells[organ, seed] for seed in seeds):.3f}" for organ in organs]
        columns.append(_spread([fmean(cells[organ, seed] for organ in organs) for seed in seeds]))
        changes = [fmean(cells[organ, seed] - honest[organ, seed] for organ in organs) for seed in seeds]
        columns.append("" if cells is honest else _spread(changes, "+"))
        lines.append(f"| {label} | {' | '.join(columns)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], sign: str = "") -> str:
    return f"{fmean(values):{sign}.3f} ± {stdev(values):.3f}"


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(table(measure(LEFT_OUT, SEEDS), LEFT_OUT, SEEDS))


if __name__ == "__main__":
    main()
