"""Tensors as Flower's arrays and back: the bytes of NumPy's own file format, without its parser where it can be spared.

A header says no more than a dtype and a shape, so it is written once for all arrays of a kind. Bytes that begin with
exactly that header and are exactly as long as it says are read as they stand; all others are left to NumPy.
"""

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.common.constant import SType
from torch import Tensor

from fed_fsad.fields import records_of

Tensors = Mapping[str, Tensor]
"""Trainable tensors of one method by "part/parameter"."""

KINDS = {str(kind): kind for kind in map(np.dtype, ("float16", "float32", "float64", "int32", "int64"))}
NAMES = {kind: name for name, kind in KINDS.items()}
MOST_AXES = 8
"""What is read without NumPy's parser; anything else a stranger sends is for NumPy to judge."""


def arrays_of(tensors: Tensors) -> ArrayRecord:
    """Tensors as an ArrayRecord of their own copies."""
    return _record({name: _packed(tensor.numpy(force=True)) for name, tensor in tensors.items()})


def tensors_of(arrays: ArrayRecord) -> dict[str, Tensor]:
    """An ArrayRecord as tensors of their own copies, dtype kept."""
    return {name: torch.from_numpy(_values(array)) for name, array in arrays.items()}


def copied(arrays: ArrayRecord) -> ArrayRecord:
    """A record that shares no more with the first than bytes, which nobody can change."""
    return _record({name: _array(own.dtype, own.shape, own.stype, own.data) for name, own in arrays.items()})


def wire_bytes(contents: Iterable[RecordDict]) -> int:
    """Bytes of all tensors in these records, as serialised; the few settings beside them are left out."""
    return sum(
        len(array.data)
        for content in contents
        for record in records_of(content, ArrayRecord).values()
        for array in record.values()
    )


def _packed(values: np.ndarray[Any, Any]) -> Array:
    kind = NAMES.get(values.dtype)
    if kind is None or not values.flags.c_contiguous:
        return Array(values)
    return _array(kind, values.shape, SType.NUMPY, b"".join((_header(kind, values.shape), values.data)))


def _values(array: Array) -> np.ndarray[Any, Any]:
    """A copy that can be written to: the array's bytes may be everybody's."""
    kind, shape, data = KINDS.get(array.dtype), array.shape, array.data
    if kind is None or array.stype != SType.NUMPY or len(shape) > MOST_AXES:
        return array.numpy()
    header = _header(array.dtype, shape)
    if len(data) != len(header) + math.prod(shape) * kind.itemsize or not data.startswith(header):
        return array.numpy()
    return np.ndarray(shape, kind, data, len(header)).copy()


def _array(kind: str, shape: tuple[int, ...], stype: str, data: bytes) -> Array:
    """An Array as copy and pickle make it: finding out which of its signatures is meant takes longer than the rest."""
    made = Array.__new__(Array)
    made.__dict__.update(dtype=kind, shape=shape, stype=stype, data=data)
    return made


def _record(arrays: dict[str, Array]) -> ArrayRecord:
    """An ArrayRecord of these very arrays: Flower's constructor makes each of them anew."""
    record = ArrayRecord()
    record.__dict__["_data"].update(arrays)
    return record


@lru_cache(maxsize=1024)
def _header(kind: str, shape: tuple[int, ...]) -> bytes:
    """What NumPy writes before the values of an array in C order."""
    target = BytesIO()
    told = {"descr": np.lib.format.dtype_to_descr(KINDS[kind]), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(target, told)
    return target.getvalue()
