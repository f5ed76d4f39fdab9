"""The cryptography of secure aggregation: Flower's keys, key agreement, encryption and secret sharing.

Two of Flower's primitives are not used. `pseudo_rand_gen` folds its 256-bit seed into 32 bits of a Mersenne twister,
so that a server could try all seeds; masks are an AES-CTR keystream here. `quantize` rounds by NumPy's global random
state; see vector.py.
"""

import base64
import hashlib
import os
from collections.abc import Callable, Mapping
from itertools import combinations, islice
from typing import NamedTuple

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.secure_aggregation.crypto.symmetric_encryption import generate_shared_key
from flwr.supercore.primitives.asymmetric import (
    bytes_to_private_key,
    bytes_to_public_key,
    generate_key_pairs,
    private_key_to_bytes,
    public_key_to_bytes,
)
from numpy.typing import NDArray

from fed_fsad.fields import MalformedMessage

Vector = NDArray[np.uint32]
"""[L] numbers modulo 2³²."""

SEED_BYTES = 32
LONGEST_KEY = 1000
TRIES = 200
"""Sets of shares that are tried before a secret is given up."""


class PublicKeys(NamedTuple):
    """mask: for pairwise masks. channel: for what peers send each other through the server. PEM."""

    mask: bytes
    channel: bytes


def key_pair() -> tuple[bytes, bytes]:
    """A fresh private key and its public key, PEM, on NIST P-384."""
    private, public = generate_key_pairs()
    return private_key_to_bytes(private), public_key_to_bytes(public)


def fresh_seed() -> bytes:
    """32 bytes from the operating system."""
    return os.urandom(SEED_BYTES)


def checked(key: bytes) -> bytes:
    """A public key that came from elsewhere. Raises MalformedMessage when it is none on P-384."""
    try:
        public = bytes_to_public_key(key) if len(key) <= LONGEST_KEY else None
    except Exception as error:  # bytes of a stranger: whatever the parser makes of them is their fault
        raise MalformedMessage("a public key cannot be read") from error
    if not isinstance(public, EllipticCurvePublicKey) or not isinstance(public.curve, SECP384R1):
        raise MalformedMessage("a public key is not on the curve P-384")
    return public_key_to_bytes(public)


def agreed(private: bytes, public: bytes) -> bytes:
    """The key that both sides of a pair can compute and nobody else, as Fernet reads it (base64 of 32 bytes)."""
    return generate_shared_key(bytes_to_private_key(private), bytes_to_public_key(public))


def mask(seed: bytes, length: int) -> Vector:
    """[length] uniform numbers modulo 2³² that only who knows `seed` can tell: AES-256 in counter mode."""
    stream = Cipher(AES256(seed), CTR(bytes(16))).encryptor().update(bytes(4 * length))
    return np.frombuffer(stream, dtype="<u4").astype(np.uint32)


def pair_mask(private: bytes, public: bytes, length: int) -> Vector:
    """The mask that two sites share."""
    return mask(base64.urlsafe_b64decode(agreed(private, public)), length)


def commitment(seed: bytes) -> bytes:
    """What fixes a seed without telling it: a seed that is put together from shares can be checked."""
    return hashlib.sha256(b"fed_fsad mask seed" + seed).digest()


def belongs(private: bytes, public: bytes) -> bool:
    """Whether `private` is the private key of `public`."""
    try:
        return public_key_to_bytes(bytes_to_private_key(private).public_key()) == public
    except Exception:  # put together from shares of strangers
        return False


def split(secret: bytes, threshold: int, count: int) -> list[bytes]:
    """`count` shares of a secret, any `threshold` of which give it back (Shamir 1979)."""
    return create_shares(secret, threshold, count)


def join(shares: Mapping[str, bytes], threshold: int, right: Callable[[bytes], bool]) -> tuple[bytes, list[str]] | None:
    """The secret and who gave a wrong share of it; None when no set of shares gives one that is `right`.

    shares: by holder, less than twice `threshold` of them. Sets are tried in the order of the holders' names.
    """

    def secret_of(holders: tuple[str, ...]) -> bytes | None:
        try:
            secret = combine_shares([shares[holder] for holder in holders])
        except Exception:  # shares of strangers: of other lengths, twice the same, not of one secret
            return None
        return secret if right(secret) else None

    def wrong(right_ones: tuple[str, ...], others: list[str]) -> list[str]:
        """Who of `others` gave a wrong share: all are tried at once, and halves of them when that fails."""
        if not others or secret_of((*right_ones[len(others) :], *others)) is not None:
            return []
        if len(others) == 1:
            return others
        half = len(others) // 2
        return wrong(right_ones, others[:half]) + wrong(right_ones, others[half:])

    for chosen in islice(combinations(sorted(shares), threshold), TRIES):
        if (secret := secret_of(chosen)) is not None:
            return secret, wrong(chosen, sorted(set(shares) - set(chosen)))
    return None
