"""What attacks are made of: a pool of images, privacy records of them, and records' gradients."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fed_fsad.data.episodes import Episode
from fed_fsad.data.features import Rows
from fed_fsad.methods.method import Method
from fed_fsad.privacy.gradients import record_gradients
from fed_fsad.privacy.records import partition_records, private_episode
from fed_fsad.seeds import torch_stream

Tell = Callable[[int, int], None]
"""Called with (done, in all)."""
MOST_SCALARS = 1 << 27
"""Scalars of gradients that are held at a time."""
_CHUNK = 32


@dataclass(frozen=True)
class Ground:
    """A method with its start tensors, and a pool of images of one task, without patients, as it sees them.

    kept: gradients that several subjects ask for, by what was asked.
    """

    method: Method
    pool: Rows
    seed: int
    kept: dict[tuple[object, ...], Tensor] = field(default_factory=dict)

    @property
    def records(self) -> tuple[tuple[str, ...], ...]:
        """The pool's privacy records, one per image or per episode of K + 1."""
        return partition_records(self.pool.samples, self.method.episode, self.seed, "image")

    def episode(self, records: Sequence[Sequence[str]]) -> Episode:
        """Some of the pool's records as one batch."""
        wanted = {name for record in records for name in record}
        rows = self.pool.select([i for i, sample in enumerate(self.pool.samples) if sample.id in wanted])
        return private_episode(rows, tuple(map(tuple, records)), self.method.episode.supports)

    def natural(self, names: tuple[str, ...], count: int) -> Tensor:
        """The unclipped gradients of the pool's first `count` records, [<= count, P]."""
        key = ("natural", names, count)
        if key not in self.kept:
            self.kept[key] = gradients_of(self.method, self.episode(self.records[:count]), names)
        return self.kept[key]

    def synthetic(self, names: tuple[str, ...], count: int, tell: Tell) -> Tensor:
        """The unclipped gradients of `count` records that nobody owns, [count, P]; fewer where memory does not do."""
        key = ("synthetic", names, count)
        if key not in self.kept:
            self.kept[key] = self._synthetic(names, count, tell)
        return self.kept[key]

    def _synthetic(self, names: tuple[str, ...], count: int, tell: Tell) -> Tensor:
        scalars = sum(self.method.trainable()[name].numel() for name in names)
        count = min(count, max(1, MOST_SCALARS // scalars))
        found = torch.empty(count, scalars)
        for start in range(0, count, _CHUNK):
            size = min(_CHUNK, count - start)
            found[start : start + size] = gradients_of(self.method, self._imagined(start, size), names)
            tell(start + size, count)
        return found

    def _imagined(self, start: int, count: int) -> Episode:
        """`count` records of features drawn at random, place by place as large as the pool's, with its labels."""
        size = self.method.episode.supports + 1
        stream = torch_stream(self.seed, "synthetic records", start)
        features = {name: _alike(tensor, count * size, stream) for name, tensor in self.pool.features.items()}
        able = [sample for sample in self.pool.samples if sample.is_normal or not self.method.episode.normals_only]
        samples = tuple(
            replace(able[(start * size + i) % len(able)], id=f"synthetic {start * size + i}")
            for i in range(count * size)
        )
        records = tuple(tuple(sample.id for sample in samples[i : i + size]) for i in range(0, count * size, size))
        return private_episode(Rows(features, samples), records, size - 1)


def gradients_of(method: Method, episode: Episode, names: Sequence[str]) -> Tensor:
    """Every record's gradient over all `names`, unclipped and flat, [R, P] on the CPU; zero where it is not finite."""
    parameters = [method.trainable()[name] for name in names]
    rows = [flat(gradients).cpu() for gradients in record_gradients(method, episode, parameters)]
    found = torch.stack(rows) if rows else torch.zeros(0, sum(tensor.numel() for tensor in parameters))
    return torch.where(torch.isfinite(found).all(dim=1, keepdim=True), found, 0)


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All values of some tensors, [P]."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def _alike(tensor: Tensor, count: int, stream: torch.Generator) -> Tensor:
    """[count, ...] Gaussian around 0, at every place as large as [N, ...] is there, and as long as its rows are."""
    noise = torch.randn(count, *tensor.shape[1:], generator=stream).to(tensor)
    drawn = tensor.square().mean(dim=0).sqrt() * noise
    length = tensor.flatten(1).norm(dim=1).mean()
    scale: Tensor = length / drawn.flatten(1).norm(dim=1).clamp_min(1e-12)
    return drawn * scale.view(-1, *[1] * (drawn.dim() - 1))
