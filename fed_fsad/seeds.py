"""Random streams by name: every draw of a run follows from its seed and from what the draw is for."""

import hashlib

import numpy as np
import torch


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names`, e.g. `derive(cfg.seed, "episodes", site, round)` (ours).

    Streams of different names are independent; node ids, arrival order and draws made elsewhere never enter.
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def numpy_stream(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator for the stream called `names`."""
    return np.random.default_rng(derive(seed, *names))


def torch_stream(seed: int, *names: str | int) -> torch.Generator:
    """A CPU torch generator for the stream called `names`."""
    return torch.Generator().manual_seed(derive(seed, *names))


def reproducible(threads: int) -> None:
    """Make this process's torch give the same bits for the same work: a fixed number of threads, ordered sums.

    With two threads and more, the gradient of gathered supports would else be added up in the order threads finish.
    """
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
