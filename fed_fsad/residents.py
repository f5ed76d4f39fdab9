"""What one process keeps: each frozen model once, each image's features once, however many sites live in it."""

from collections.abc import Callable, Sequence
from functools import lru_cache

from fed_fsad import methods
from fed_fsad.data.features import FeatureCache, Rows
from fed_fsad.data.samples import Sample
from fed_fsad.methods.method import Method, TrainingSettings

CACHE_BYTES = 2 << 30
"""Features kept in memory before the least recently used make room."""

_features = FeatureCache(CACHE_BYTES)


@lru_cache(maxsize=8)
def _built(name: str, settings: TrainingSettings, seed: int) -> Method:
    return methods.build(name, settings, seed)


def resident(name: str, settings: TrainingSettings, seed: int) -> Method:
    """This process's one instance of a method; load the tensors you mean before every use of it."""
    return _built(name, settings, seed)


def rows_of(method: Method, progress: Callable[[int, int], None] | None = None) -> Callable[[Sequence[Sample]], Rows]:
    """A function from samples to this method's features of them, [N, ...] each, computed at most once per image."""

    def rows(samples: Sequence[Sample]) -> Rows:
        return _features.rows(method.model_id, method.features, method.image_size, samples, progress)

    return rows
