"""Gaussian noise from a cryptographic keystream: an observer of some values can predict none of the others."""

import hashlib
import math
import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from torch import Tensor

_PAIRS = 1 << 17
_ZEROS = memoryview(bytes(16 * _PAIRS))


class Noise(Protocol):
    """Where privacy noise comes from."""

    @property
    def secure(self) -> bool:
        """False when somebody could draw the same noise again: no guarantee holds then, and the ledger says so."""

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Independent standard normal values, [*shape] float64 on the CPU.

        Add them in float64 and round to float32 last: the grid of the released values then tells nothing of the noise
        (Mironov 2012 on what rounding can leak).
        """


def drawn(noise: Noise, count: int, rate: float) -> list[int]:
    """A Poisson sample: which of `count` records enter a batch, each with probability `rate` by itself.

    A standard normal value lies below Φ⁻¹(rate) with that probability, so the coins come from the same keystream.
    """
    below = torch.special.ndtri(torch.tensor(rate, dtype=torch.float64))
    found: list[int] = (noise.normal([count]) < below).nonzero().flatten().tolist()
    return found


class SecureNoise:
    """Noise under a fresh key from the operating system; it can be repeated by nobody, this process included."""

    secure = True

    def __init__(self) -> None:
        self._keystream = _keystream(os.urandom(32))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """See `Noise.normal`."""
        return _normal(self._keystream, shape)


class InsecureSeededNoise:
    """The same noise for the same seed, for tests and for comparing runs; it protects nobody."""

    secure = False

    def __init__(self, seed: int) -> None:
        self._keystream = _keystream(hashlib.sha256(f"insecure noise {seed}".encode()).digest())

    def normal(self, shape: Sequence[int]) -> Tensor:
        """See `Noise.normal`."""
        return _normal(self._keystream, shape)


def _keystream(key: bytes) -> CipherContext:
    return Cipher(AES256(key), CTR(bytes(16))).encryptor()


def _normal(keystream: CipherContext, shape: Sequence[int]) -> Tensor:
    count = math.prod(shape)
    values = torch.empty(count + count % 2, dtype=torch.float64)
    for start in range(0, len(values), 2 * _PAIRS):
        block = values[start : start + 2 * _PAIRS]
        _box_muller(keystream.update(_ZEROS[: 8 * len(block)]), block)
    return values[:count].reshape(tuple(shape))


def _box_muller(stream: bytes, out: Tensor) -> None:
    """2 P normal values, into `out`, of 16 P random bytes (Box & Muller 1958), 53 random bits in every uniform."""
    # NumPy has the unsigned shift, PyTorch the quicker sine and cosine.
    uniform = torch.from_numpy((np.frombuffer(stream, dtype="<u8") >> 11).astype(np.float64)).mul_(2.0**-53)
    first, angle = uniform.chunk(2)
    radius = first.neg_().log1p_().mul_(-2).sqrt_()
    angle.mul_(2 * math.pi)
    torch.cos(angle, out=out[: len(angle)])
    torch.sin(angle, out=out[len(angle) :])
    out.view(2, -1).mul_(radius)
