"""What a private step costs against the plain step on the same images: CPU seconds and memory, by method and part.

    python -m benchmarks.privacy

Both steps of a line run in one process, turn by turn, on one thread; the ratio is the median over the turns. The limit
is one forward pass of what no image changes, and one pull-back through it per record: nothing that clips record by
record can do with less. With --opacus the same clipping by Opacus' optimiser stands beside ours.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from opacus.optimizers import DPOptimizer
from torch import Tensor

from benchmarks import sdmad_step
from benchmarks.d24fad_step import random_weights
from benchmarks.timing import Cost, Step, cost
from fed_fsad import methods
from fed_fsad.data.episodes import Episode
from fed_fsad.data.features import FeatureCache
from fed_fsad.data.phantoms import phantom_set
from fed_fsad.methods.d24fad.detector import build
from fed_fsad.methods.d24fad.settings import Settings
from fed_fsad.methods.method import Method, TrainingSettings
from fed_fsad.methods.training import moving, optimiser
from fed_fsad.privacy.gradients import private_gradient, record_gradients, select_records
from fed_fsad.privacy.noise import SecureNoise
from fed_fsad.privacy.records import partition_records, private_episode

SEED = 1
TASK = "oct"
SIGMA = 1.0
CLIP = 1.0


@dataclass(frozen=True)
class Case:
    """One line: a method of some size, the parts that train, and how many records a step looks at."""

    label: str
    method: Callable[[], Method]
    parts: tuple[str, ...]
    records: int

    def prepared(self) -> tuple[Method, Episode, dict[str, Tensor]]:
        """The method, one full batch, and the tensors that move."""
        own = self.method()
        size = own.episode.supports + 1
        abnormal = 0 if own.episode.normals_only else self.records // 2
        samples = phantom_set(TASK, self.records * size - abnormal, abnormal, 0, SEED)
        rows = FeatureCache(0).rows(own.model_id, own.features, own.image_size, samples)
        records = partition_records(samples, own.episode, SEED, "image")
        tensors = {name: t for name, t in moving(own, self.parts).items() if name not in own.silent}
        return own, private_episode(rows, records, own.episode.supports), tensors


def plain(own: Method, episode: Episode, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of the mean loss."""
    found = torch.autograd.grad(own.losses(episode).mean(), list(tensors.values()), allow_unused=True)
    return {name: g for name, g in zip(tensors, found, strict=True) if g is not None}


def private(own: Method, episode: Episode, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The clipped and noised one."""
    found = private_gradient(
        own,
        episode,
        records=len(set(episode.record.tolist())),
        clip_norm=CLIP,
        noise_multiplier=SIGMA,
        noise=SecureNoise(),
        names=list(tensors),
    )
    return dict(found.gradients)


def by_opacus(own: Method, episode: Episode, tensors: dict[str, Tensor], *, physical: int) -> dict[str, Tensor]:
    """The same gradients per record, clipped, summed and noised by Opacus' optimiser, `physical` records at a time."""
    parameters, count = list(tensors.values()), len(set(episode.record.tolist()))
    inner = torch.optim.SGD(parameters, lr=0.0)
    dp = DPOptimizer(inner, noise_multiplier=SIGMA, max_grad_norm=CLIP, expected_batch_size=count)
    for start in range(0, count, physical):
        part = select_records(episode, range(start, min(start + physical, count)))
        samples = zip(*record_gradients(own, part, parameters), strict=True)
        for parameter, gradients in zip(parameters, samples, strict=True):
            parameter.grad_sample = torch.stack(gradients)  # type: ignore[attr-defined]
        dp.signal_skip_step(start + physical < count)
        dp.pre_step()
        if start + physical < count:
            dp.zero_grad()
    return {name: tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}


Gradient = Callable[[Method, Episode, dict[str, Tensor]], dict[str, Tensor]]


def stepping(case: Case, gradient: Gradient) -> Step:
    """One step of training: a gradient, and Adam."""
    own, episode, tensors = case.prepared()
    return step_of(own, episode, tensors, gradient)


def step_of(own: Method, episode: Episode, tensors: dict[str, Tensor], gradient: Gradient) -> Step:
    """As `stepping`, for what is prepared already."""
    adam = optimiser(tensors, TrainingSettings())

    def step() -> dict[str, Tensor]:
        found = gradient(own, episode, tensors)
        for name, tensor in tensors.items():
            tensor.grad = found.get(name)
        adam.step()
        return found

    return step


def limit(own: Method, episode: Episode, tensors: dict[str, Tensor]) -> Callable[[], object]:
    """Forward once, and one pull-back per record, of what no image changes; nothing of the images themselves."""
    parameters, count = list(tensors.values()), len(set(episode.record.tolist()))

    def work() -> None:
        with own.shared(episode.rows.samples) as cuts:
            outcomes = [outcome for outcome, _ in cuts]
            into = [torch.ones_like(outcome) for outcome in outcomes]
            for _ in range(count if cuts else 0):
                torch.autograd.grad(outcomes, parameters, into, retain_graph=True, allow_unused=True)

    return work


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def memory_of(case: Case, way: Gradient) -> Cost:
    """The cost of one step in a process of its own, forked before this one holds anything."""
    return cost(partial(stepping, case, way), 0.0)


def line(case: Case, turns: int, memory: Sequence[float]) -> str:
    """A row of the table. memory: MiB of the plain and of the private step."""
    own, episode, tensors = case.prepared()
    noise, sizes = SecureNoise(), [tensor.shape for tensor in tensors.values()]
    ways = (
        step_of(own, episode, tensors, plain),
        step_of(own, episode, tensors, private),
        lambda: [noise.normal(size) for size in sizes],
        limit(own, episode, tensors),
    )
    spent = [[seconds(way) for way in ways] for _ in range(turns + 1)][1:]
    plain_s, private_s, noise_s, limit_s = (statistics.median(column) for column in zip(*spent, strict=True))
    ratio = statistics.median(own_s / other_s for other_s, own_s, *_ in spent)
    least = statistics.median(own_s / bound for _, own_s, _, bound in spent)
    dims = sum(tensor.numel() for tensor in tensors.values())
    beside = f"{limit_s / plain_s:.1f} | {least:.2f}" if limit_s > 1e-3 else "– | –"
    return (
        f"| {case.label} | {dims:,} | {case.records} | {plain_s:.3f} | {private_s:.3f} | {ratio:.2f} | {beside} | "
        f"{100 * noise_s / private_s:.1f} % | {memory[0]:.0f} | {memory[1]:.0f} |"
    )


def cases(weights: str | None) -> list[Case]:
    """Small methods, as they come, and the shapes of the papers."""
    found = []
    for parts in (
        ("context",),
        ("text_adapters",),
        ("image_adapters",),
        ("context", "text_adapters", "image_adapters"),
    ):
        small = partial(_built, "sdmad", {"trainable": parts})
        found.append(Case(f"SD-MAD, embedded: {' + '.join(parts)}", small, parts, 24))
    text = sdmad_step.Case("ViT-B-16", ("context",), 4)
    found.append(Case("SD-MAD, ViT-B-16: context", text.method, ("context",), 4))
    both = sdmad_step.Case("ViT-B-16", ("image_adapters",), 4)
    found.append(Case("SD-MAD, ViT-B-16: image_adapters", both.method, ("image_adapters",), 4))
    for student, parts in (("light", ("affine",)), ("light", ("affine", "lowrank", "weighting")), ("full", FULL)):
        small = partial(_built, "d24fad", {"student": student})
        found.append(Case(f"D²4FAD, embedded, {student}: {' + '.join(parts)}", small, parts, 8))
        real = partial(_real, student, weights)
        found.append(Case(f"D²4FAD, {TEACHER}, {student}: {' + '.join(parts)}", real, parts, 4))
    return found


FULL = ("affine", "kernels", "weighting")
TEACHER = "wide_resnet50_2"


def _built(name: str, settings: dict[str, object]) -> Method:
    return methods.build(name, methods.settings_type(name).model_validate(settings), SEED)


def _real(student: str, weights: str | None) -> Method:
    shape = {"image_size": 128, "supports": 2, "student": student}
    return build(Settings.model_validate({"teacher": {"name": TEACHER, "weights": weights}, **shape}), SEED)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="times that both steps of a line are run")
    parser.add_argument("--only", default="", help="lines whose name holds this")
    parser.add_argument("--opacus", action="store_true", help="also Opacus' optimiser, for the last line")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print("| | scalars | records | plain, CPU s | private, CPU s | ratio | limit | of limit | noise | MiB | private |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="privacy") as folder:
        chosen = [case for case in cases(random_weights(TEACHER, Path(folder))) if asked.only in case.label]
        memory = [[memory_of(case, way).peak_mib for way in (plain, private)] for case in chosen]
        sizes = (1, chosen[-1].records) if asked.opacus else ()
        opacus = {physical: memory_of(chosen[-1], partial(by_opacus, physical=physical)) for physical in sizes}
        for case, held in zip(chosen, memory, strict=True):
            print(line(case, asked.turns, held), flush=True)
        for physical, own in opacus.items():
            print(f"{chosen[-1].label}, Opacus, {physical} at a time: {own.first_s:.2f} CPU s, {own.peak_mib:.0f} MiB")


if __name__ == "__main__":
    main()
