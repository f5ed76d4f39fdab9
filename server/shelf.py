"""Where the updates of a round wait until all of them are there: the first in memory, the others in a nameless file.

A median of lengths needs every update before the first one counts, so none can be added up as it comes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import torch
from torch import Tensor

from fed_fsad.errors import FederationError
from fed_fsad.messages import Reply, Tensors

IN_MEMORY = 64 << 20
"""Bytes of updates that stay in memory, whatever the number of sites."""


class Shelf:
    """Keeps the tensors of any number of replies in bounded memory, to the last bit.

    The file lies in `folder` and has no name, so that nothing of it is left after a kill.
    """

    def __init__(self, folder: Path, in_memory: int = IN_MEMORY) -> None:
        self._folder = folder
        self._in_memory = in_memory
        self._held = 0
        self._file: IO[bytes] | None = None

    def put(self, reply: Reply) -> Reply:
        """The same reply, its tensors read again at every look where memory is used up. Raises FederationError."""
        own = [*reply.tensors.values(), *reply.variates.values()]
        size = sum(tensor.nbytes for tensors in own for tensor in tensors.values())
        if self._held + size <= self._in_memory:
            self._held += size
            return reply
        try:
            return replace(reply, tensors=self._laid(reply.tensors), variates=self._laid(reply.variates))
        except OSError as error:
            raise FederationError(
                f"{self._folder} cannot keep the updates of this round ({error.strerror}); make room there and "
                "continue with --resume auto"
            ) from error

    def clear(self) -> None:
        """Forget everything; tensors that were put here before cannot be read any more."""
        self._held = 0
        if self._file is not None:
            self._file.close()
            self._file = None

    def _laid(self, tensors: Mapping[str, Tensors]) -> dict[str, Tensors]:
        if self._file is None:
            self._file = TemporaryFile(dir=self._folder)  # noqa: SIM115 - `clear` closes it
        file, laid = self._file, dict[str, Tensors]()
        for method, own in tensors.items():
            places: dict[str, _Place] = {}
            for name, tensor in own.items():
                values = tensor.detach().cpu().numpy()
                places[name] = _Place(file.seek(0, 2), values.dtype, values.shape)
                file.write(values.tobytes())
            laid[method] = _Laid(file, places)
        file.flush()
        return laid


@dataclass(frozen=True)
class _Place:
    """Where a tensor begins in the file, and what it is."""

    offset: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]


class _Laid(Mapping[str, Tensor]):
    """Tensors by name, read from the file at every look and kept by nobody."""

    def __init__(self, file: IO[bytes], places: Mapping[str, _Place]) -> None:
        self._file = file
        self._places = places

    def __getitem__(self, name: str) -> Tensor:
        place = self._places[name]
        values = np.empty(place.shape, place.dtype)
        self._file.seek(place.offset)
        values.reshape(-1).view(np.uint8)[:] = np.frombuffer(self._file.read(values.nbytes), np.uint8)
        return torch.from_numpy(values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
