"""Arrays on the wire: NumPy's own bytes, Flower's own identity, copies, and NumPy's own judgement of anything odd."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fed_fsad.arrays import arrays_of, copied, tensors_of

Values = np.ndarray[Any, Any]
kinds = st.sampled_from(["float16", "float32", "float64", "int32", "int64", "uint8", "bool"])
values = hnp.arrays(kinds, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))


def saved(array: Values) -> bytes:
    target = BytesIO()
    np.save(target, array, allow_pickle=False)
    return target.getvalue()


def read(dtype: str, shape: tuple[int, ...], data: bytes) -> Values:
    """What a record of one such array says."""
    return tensors_of(ArrayRecord({"a": Array(dtype, shape, "numpy.ndarray", data)}))["a"].numpy()


@given(values, st.booleans())
def test_what_is_packed_is_what_flower_and_numpy_would_have_packed(array: Values, turned: bool) -> None:
    tensor = torch.from_numpy(array).T if turned and array.ndim == 2 else torch.from_numpy(array)
    ours, flowers = arrays_of({"a": tensor}), ArrayRecord({"a": Array(tensor.numpy())})
    assert ours["a"] == flowers["a"]
    assert ours["a"].data == saved(tensor.numpy())
    assert ours.object_id == flowers.object_id, "what Flower calls it on a network"
    assert copied(ours).object_id == ours.object_id
    assert torch.equal(torch.nan_to_num(tensors_of(ours)["a"]), torch.nan_to_num(tensor))
    assert tensors_of(ours)["a"].dtype == tensor.dtype


@pytest.mark.parametrize("kind", ["float32", "uint8"], ids=["read here", "read by numpy"])
def test_tensors_are_nobody_elses(kind: str) -> None:
    source = torch.zeros(3, dtype=getattr(torch, kind))
    record = arrays_of({"a": source})
    source.add_(1)
    first = tensors_of(record)["a"]
    first.add_(2)
    assert tensors_of(record)["a"].tolist() == [0, 0, 0]


def test_a_copy_has_arrays_of_its_own() -> None:
    record = arrays_of({"a": torch.zeros(2), "b": torch.ones(2)})
    other = copied(record)
    record["a"].data = b"x"
    del record["b"]
    assert [tensor.tolist() for tensor in tensors_of(other).values()] == [[0, 0], [1, 1]]


@pytest.mark.parametrize(
    ("dtype", "shape", "array"),
    [
        ("float32", (2,), np.arange(3, dtype="float32")), ("float32", (4,), np.arange(3, dtype="float32")),
        ("float64", (3,), np.arange(3, dtype="float32")), ("no kind", (3,), np.arange(3, dtype="float32")),
        ("float32", (3, 2), np.asfortranarray(np.arange(6, dtype="float32").reshape(3, 2))),
        ("float32", (1,) * 9, np.zeros((1,) * 9, "float32")),
    ],
    ids=["short", "long", "kind", "unknown kind", "columns first", "many axes"],
)  # fmt: skip
def test_the_bytes_count_and_not_what_is_said_beside_them(dtype: str, shape: tuple[int, ...], array: Values) -> None:
    found = read(dtype, shape, saved(array))
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


@pytest.mark.parametrize("shape", [(-1,), (-1, -3), (3, -1), (2**70,), (0, 2**70), (4,)], ids=str)
def test_a_shape_that_cannot_be_is_refused_as_by_numpy(shape: tuple[int, ...]) -> None:
    data = saved(np.arange(3, dtype="float32"))
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    forged = data[:10] + header.ljust(117) + b"\n" + data[128:]
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever NumPy makes of it; messages.py refuses them all
        np.load(BytesIO(forged), allow_pickle=False)
    with pytest.raises(Exception):  # noqa: B017, PT011
        read("float32", shape, forged)


def test_bytes_that_are_cut_off_are_refused_and_those_behind_the_end_are_not_read() -> None:
    data = saved(np.arange(3, dtype="float32"))
    with pytest.raises(ValueError, match="EOF"):
        read("float32", (3,), data[:-1])
    assert read("float32", (3,), data + b"more").tolist() == [0, 1, 2]
