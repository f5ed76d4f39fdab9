"""Who may see what: the seeds, kinds and signs of pretraining and of its figures."""

from fed_fsad.data.phantoms import HELD_OUT, ORGANS
from fed_fsad.data.signs import SignBook, load_signs

WITHHELD = frozenset(category for _, category in HELD_OUT)


def training_seed(seed: int) -> int:
    """Phantom seeds of the corpus are odd and negative: no config, whose seeds start at 0, can ever draw them."""
    return -2 * seed - 1


def validation_seed(seed: int) -> int:
    """Phantom seeds of the figures are even and negative: neither the corpus nor a config draws them."""
    return -2 * seed - 2


def seen_kinds(organ: str) -> tuple[str, ...]:
    """The organ's anomalies that pretraining may see."""
    return tuple(kind for kind in ORGANS[organ].kinds if (organ, kind) not in HELD_OUT)


def seen_signs() -> SignBook:
    """The phantoms' signs without the held-out categories and the signs that only they have."""
    book = load_signs("phantoms")
    tasks = {
        task: entry.model_copy(
            update={"categories": {name: signs for name, signs in entry.categories.items() if name not in WITHHELD}}
        )
        for task, entry in book.tasks.items()
    }
    return SignBook(tasks)
