"""Masks against another library's AES, secrets against wrong shares, and strangers' bytes against every reader."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from Crypto.Cipher import AES
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fed_fsad.fields import MalformedMessage
from fed_fsad.secagg import crypto, wire


@given(seed=st.binary(min_size=32, max_size=32), length=st.integers(0, 40))
def test_a_mask_is_the_keystream_of_aes_256_in_counter_mode(seed: bytes, length: int) -> None:
    other = AES.new(seed, AES.MODE_CTR, nonce=b"", initial_value=0).encrypt(bytes(4 * length))
    assert crypto.mask(seed, length).tolist() == [
        int.from_bytes(other[4 * i : 4 * i + 4], "little") for i in range(length)
    ]


def test_both_sides_of_a_pair_have_the_same_mask_and_nobody_else_has() -> None:
    (one, one_public), (two, two_public), (three, _) = (crypto.key_pair() for _ in range(3))
    mask = crypto.pair_mask(one, two_public, 100)
    assert np.array_equal(mask, crypto.pair_mask(two, one_public, 100))
    assert not np.array_equal(mask, crypto.pair_mask(three, one_public, 100))


def test_a_secret_is_put_together_from_right_shares_and_those_who_lie_are_named() -> None:
    secret = crypto.fresh_seed()
    fixed = crypto.commitment(secret)
    shares = dict(zip("abcde", crypto.split(secret, 3, 5), strict=True))

    def right(found: bytes) -> bool:
        return crypto.commitment(found) == fixed

    assert crypto.join(shares, 3, right) == (secret, [])
    wrong = {**shares, "a": shares["a"][:-1] + bytes([shares["a"][-1] ^ 1]), "d": shares["d"][:-16]}
    assert crypto.join(wrong, 3, right) == (secret, ["a", "d"])
    assert crypto.join({**wrong, "e": b""}, 3, right) is None
    assert crypto.join({name: shares[name] for name in "ab"}, 3, right) is None


values = st.one_of(
    st.integers(-(2**63), 2**63 - 1), st.floats(), st.text(max_size=8), st.binary(max_size=300), st.booleans(),
    st.lists(st.text(max_size=3), max_size=4), st.lists(st.binary(max_size=40), max_size=4),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
)  # fmt: skip
keys = st.sampled_from([
    "step", "session", "mask-key", "channel-key", "sites", "mask-keys", "channel-keys", "threshold", "ciphertexts",
    "commitment", "shares", "unreadable", "active", "dropped", "run", "round", "smallest", "clip_norm",
])  # fmt: skip


@settings(deadline=None)
@given(config=st.dictionaries(keys, values))
def test_whatever_a_stranger_writes_is_read_or_refused_by_name(config: dict[str, Any]) -> None:
    record = ConfigRecord(config)
    content = RecordDict({wire.KEY: record})
    whole: list[Any] = [wire.step_of, wire.terms_of, wire.roll_of, wire.bytes_of]
    step: list[Any] = [wire.keys_of, wire.commitment_of, wire.accused]
    step += [partial(wire.by_site, name=name) for name in ("ciphertexts", "shares")]
    for said in [_said(read, content) for read in whole] + [_said(read, record) for read in step]:
        assert said.isprintable()
        assert 0 < len(said) < 300


def _said(read: Any, given: Any) -> str:
    """What a reader says of its input: why it refuses it, or that it was read."""
    try:
        read(given)
    except MalformedMessage as refusal:  # any other exception fails the test
        return str(refusal)
    return "read"


def test_a_vector_of_another_kind_is_refused() -> None:
    good = np.arange(5, dtype=np.uint32)
    assert wire.vector_of(ArrayRecord({wire.VECTOR: Array(good)}), 5).tolist() == [0, 1, 2, 3, 4]
    for bad in (good.astype(np.int64), good[:4], good.reshape(1, 5)):
        with pytest.raises(MalformedMessage, match="not uint32"):
            wire.vector_of(ArrayRecord({wire.VECTOR: Array(bad)}), 5)
    broken = Array("uint32", (5,), "numpy.ndarray", b"no array")
    for record in (None, ArrayRecord({"other": Array(good)}), ArrayRecord({wire.VECTOR: broken})):
        with pytest.raises(MalformedMessage):
            wire.vector_of(record, 5)
