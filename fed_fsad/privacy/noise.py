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
from numpy.typing import NDArray
from torch import Tensor

_PAIRS = 1 << 17


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
    values = np.empty(count + count % 2)
    for start in range(0, len(values), 2 * _PAIRS):
        block = values[start : start + 2 * _PAIRS]
        block[:] = _box_muller(keystream.update(bytes(8 * len(block))))
    return torch.from_numpy(values[:count].reshape(tuple(shape)))


def _box_muller(stream: bytes) -> NDArray[np.float64]:
    """[2 P] normal values out of 16 P random bytes (Box & Muller 1958), 53 random bits in every uniform."""
    uniform = (np.frombuffer(stream, dtype="<u8") >> 11) * 2.0**-53
    first, second = np.split(uniform, 2)
    radius = np.sqrt(-2 * np.log1p(-first))
    angle = 2 * np.pi * second
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])
