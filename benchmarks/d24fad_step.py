"""What a training step and a scored image of D²4FAD cost: a plain loop as the paper describes it, against ours.

    python -m benchmarks.d24fad_step --batch 16 --shots 2 4 8

Both do the same arithmetic on the same phantoms, episodes and random weights of the true shapes. The plain loop keeps
the teacher and its graph inside the step, encodes the supports one after the other and decodes every image each time.
Every line is measured in a process of its own on one thread: CPU seconds, the most memory held, and how far the
gradient (or the anomaly map) is from the plain loop's, |difference| / |plain|.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torchvision.models
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.timing import SECONDS, Step, print_lines
from fed_fsad.data.episodes import Episode, sample_episode
from fed_fsad.data.features import FeatureCache, Rows
from fed_fsad.data.phantoms import phantom_set
from fed_fsad.data.samples import Sample
from fed_fsad.methods.d24fad.backbones import HEAD
from fed_fsad.methods.d24fad.detector import D24FAD, TARGETS, build
from fed_fsad.methods.d24fad.losses import cosine_distances
from fed_fsad.methods.d24fad.scoring import combine, position_distance
from fed_fsad.methods.d24fad.settings import Settings
from fed_fsad.methods.training import optimiser
from fed_fsad.seeds import derive, numpy_stream

SEED = 1
TASK = "oct"


@dataclass(frozen=True)
class Case:
    """One measured shape. weights: a file for `teacher`; None where the teacher has weights of its own."""

    teacher: str
    weights: str | None
    size: int
    batch: int
    shots: int

    def method(self) -> D24FAD:
        """Freshly built; the same in every process."""
        shape = {"image_size": self.size, "supports": self.shots, "batch": self.batch, "score": "d24fad"}
        return build(
            Settings.model_validate({"teacher": {"name": self.teacher, "weights": self.weights}, **shape}), SEED
        )

    def samples(self) -> list[Sample]:
        """As many as one batch needs: its queries are each other's supports."""
        return list(phantom_set(TASK, max(self.batch, self.shots + 1), 0, 0, SEED))

    def images(self) -> Tensor:
        """The samples' pixels, [N, 3, S, S]."""
        return torch.stack([torch.from_numpy(sample.source.image(self.size)) for sample in self.samples()])

    def rows(self, method: D24FAD) -> Rows:
        """Their frozen features, as a run keeps them."""
        return FeatureCache(0).rows(method.model_id, method.features, self.size, self.samples())

    def episode(self, method: D24FAD, rows: Rows) -> Episode:
        """The same draw in every process."""
        return sample_episode(rows, method.episode, numpy_stream(SEED, "d24fad step"))


class Plain:
    """The method's own networks, used as the paper's procedure reads: nothing is kept from one call to the next."""

    def __init__(self, method: D24FAD, teacher_graph: bool) -> None:
        self._method = method
        self._teacher = method._teacher
        self._teacher_graph = teacher_graph
        self._teacher._network.requires_grad_(teacher_graph)

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """[B, 3, S, S] to the teacher's four stages."""
        if not self._teacher_graph:
            return self._teacher.stages(images)
        stages: tuple[Tensor, ...] = self._teacher._network((images - self._teacher._mean) / self._teacher._std)
        return stages

    def weighted(self, queries: Sequence[Tensor], supports: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Per scale the weighted support [B, C, H, W]; supports: per shot and scale [B, C, H, W]."""
        weighting, found = self._method._weighting, []
        for scale, query in enumerate(queries):
            values = torch.stack([shot[scale] for shot in supports], dim=1)
            keys = torch.stack([weighting.phi[scale](shot[scale]) for shot in supports], dim=1)
            found.append(weighting(query, keys, values))
        return found

    def loss(self, teacher: Sequence[Tensor], deepest: Tensor, supports: Sequence[Tensor]) -> Tensor:
        """Of queries by their teacher features, and of e4 of their supports, shot by shot: L_ssd + λ L_tsd."""
        student = self._method._student
        decoded = student(deepest)
        others = [student(e4) for e4 in supports]
        ssd = cosine_distances(decoded, self.weighted(decoded, others))
        return (ssd + self._method._settings.tsd_weight * cosine_distances(teacher, decoded)).mean()


def plain_step(case: Case, teacher_graph: bool) -> Step:
    """Encode and decode queries, then each of their supports, inside the step."""
    method, images = case.method(), case.images()
    method._student.train()
    episode = case.episode(method, Rows({"place": torch.arange(len(images))}, tuple(case.samples())))
    chosen = images[episode.rows.features["place"]]
    plain = Plain(method, teacher_graph)

    def loss() -> Tensor:
        *targets, deepest = plain.encode(chosen[episode.query])
        supports = [plain.encode(chosen[places])[3] for places in episode.support.T]
        return plain.loss(targets, deepest, supports)

    return stepping(method, loss)


def cached_step(case: Case) -> Step:
    """As plain, with every teacher feature at hand; the supports are still decoded one after the other."""
    method = case.method()
    method._student.train()
    plain, episode = Plain(method, False), case.episode(method, case.rows(method))

    def loss() -> Tensor:
        kept = episode.rows.features
        targets = [kept[name][episode.query] for name in TARGETS]
        return plain.loss(targets, kept["e4"][episode.query], [kept["e4"][places] for places in episode.support.T])

    return stepping(method, loss)


def our_step(case: Case, *, channels_last: bool = False, half: bool = False, compiled: bool = False) -> Step:
    """The method's own losses; the switches are what it could do besides."""
    method = case.method()
    rows = case.rows(method)
    if channels_last:
        method._student.to(memory_format=torch.channels_last)
        last = {name: tensor.contiguous(memory_format=torch.channels_last) for name, tensor in rows.features.items()}
        rows = Rows(last, rows.samples)
    if compiled:
        method._student.compile()
    context: Callable[[], AbstractContextManager[object]] = nullcontext
    if half:
        context = partial(torch.autocast, "cpu", torch.bfloat16)

    def loss() -> Tensor:
        with context():
            return method.losses(case.episode(method, rows)).mean()

    return stepping(method, loss)


def stepping(method: D24FAD, loss: Callable[[], Tensor]) -> Step:
    """Loss, gradients and Adam, as training does it; what comes out is the gradient."""
    tensors = method.trainable()
    adam = optimiser(tensors, method._settings)

    def step() -> dict[str, Tensor]:
        adam.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        adam.step()
        return {name: tensor.grad for name, tensor in tensors.items() if tensor.grad is not None}

    return step


def plain_score(case: Case) -> Step:
    """Every batch encodes and decodes its queries and, one after the other, each query's supports."""
    method, images = case.method(), case.images()
    method._student.eval()
    plain, student = Plain(method, False), method._student

    @torch.no_grad()
    def step() -> dict[str, Tensor]:
        decoded = student(plain.encode(images[: case.batch])[3])
        others = [student(plain.encode(one.expand(case.batch, -1, -1, -1))[3]) for one in images[: case.shots]]
        pairs = zip(decoded, plain.weighted(decoded, others), strict=True)
        return {"map": combine([position_distance(*pair) for pair in pairs], case.size)}

    return step


def our_score(case: Case, *, seen: bool) -> Step:
    """Ours, with the supports in a bank; seen: the queries' features are at hand too, as in every later evaluation."""
    method, samples = case.method(), case.samples()[: case.batch]
    rows = case.rows(method)
    bank = method.fit_support(rows.select(range(case.shots)), TASK)
    kept = FeatureCache(1 << 40)
    if seen:
        kept.rows(method.model_id, method.features, case.size, samples)

    def step() -> dict[str, Tensor]:
        cache = kept if seen else FeatureCache(0)
        found = method.score(cache.rows(method.model_id, method.features, case.size, samples).features, bank).map
        assert found is not None
        return {"map": found}

    return step


STEPS: dict[str, Callable[[Case], Step]] = {
    "plain": partial(plain_step, teacher_graph=True),
    "teacher without its graph": partial(plain_step, teacher_graph=False),
    "+ teacher features cached": cached_step,
    "+ supports gathered from the batch = **ours**": our_step,
}
BESIDES: dict[str, Callable[[Case], Step]] = {
    "ours, channels_last": partial(our_step, channels_last=True),
    "ours, student in bf16": partial(our_step, half=True),
    "ours, student by torch.compile": partial(our_step, compiled=True),
}
SCORES: dict[str, Callable[[Case], Step]] = {
    "plain": plain_score,
    "supports in a bank = **ours**": partial(our_score, seen=False),
    "ours, an image seen before": partial(our_score, seen=True),
}


def random_weights(name: str, folder: Path) -> str | None:
    """A file of random weights for torchvision's network of that name; None for a teacher that needs none."""
    if name == "random":
        return None
    torch.manual_seed(derive(SEED, "weights"))
    state = getattr(torchvision.models, name)(weights=None).state_dict()
    path = folder / "weights.safetensors"
    save_file({key: value for key, value in state.items() if not key.startswith(HEAD)}, path)
    return str(path)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4, help="queries per step; the paper's 16 takes 6 GB at K = 2")
    parser.add_argument("--shots", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--besides", action="store_true", help="also what ours could do besides, for the first K")
    parser.add_argument("--teacher", default="wide_resnet50_2", help="a torchvision ResNet, or random: the small one")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="a quick line is repeated for that long")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="step") as folder:
        weights = random_weights(asked.teacher, Path(folder))
        for number, shots in enumerate(asked.shots):
            case = Case(asked.teacher, weights, asked.size, asked.batch, shots)
            shape = f"K = {shots}, B = {asked.batch}, {asked.teacher} at {asked.size} px"
            steps = STEPS | (BESIDES if asked.besides and number == 0 else {})
            for title, ways, unit in (("A training step", steps, 1), ("A scored image", SCORES, asked.batch)):
                lines = {name: partial(way, case) for name, way in ways.items()}
                print_lines(f"{title}, {shape}", lines, unit, asked.seconds)


if __name__ == "__main__":
    main()
