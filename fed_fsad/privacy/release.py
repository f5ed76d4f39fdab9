"""How a private update leaves: saved, then charged, then handed out; a kill in between leaks nothing."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor, contiguous_format

from fed_fsad.durable import replace
from fed_fsad.errors import PolicyRefusal
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.lines import Request


class Outbox:
    """Noisy updates on disk, kept so that asking twice returns the same bytes; only the last round of every run.

    Whoever releases from it holds the site's ledger open, so two processes never write here at once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, request: Request) -> bytes | None:
        """What was saved for a request, or None."""
        path = self._path(request)
        return path.read_bytes() if path.exists() else None

    def put(self, request: Request, content: bytes) -> None:
        """Save the answer to a request; whole and on disk when this returns. Other rounds of its run are dropped.

        Raises PolicyRefusal when it cannot be written.
        """
        path = self._path(request)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            replace(path, content)
            kept = "-".join(path.name.split("-")[:2])
            for other in self._folder.glob(f"{path.name.split('-')[0]}-*"):
                if not other.name.startswith(f"{kept}-"):
                    other.unlink()
        except OSError as error:
            raise PolicyRefusal(
                "outbox_unwritable",
                f"the update cannot be saved in {self._folder} ({error.strerror}): make room or grant access to it",
            ) from error

    def _path(self, request: Request) -> Path:
        run, answer = _digest(request.run.encode()), _digest(f"{request.method}/{request.key}".encode())
        return self._folder / f"{run[:16]}-{request.round}-{answer}.safetensors"


def request_key(tensors: Mapping[str, Tensor], settings: Mapping[str, object]) -> str:
    """A digest of what was asked: the incoming tensors and every setting that decides the answer (JSON values)."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(hashlib.sha256(_bytes({name: tensors[name]})).digest())
    return digest.hexdigest()


def release(
    ledger: Ledger,
    outbox: Outbox,
    request: Request,
    *,
    releases: int,
    sigma: float,
    secure: bool,
    rate: float = 1.0,
    compute: Callable[[], Mapping[str, Tensor]],
) -> dict[str, Tensor]:
    """The answer to a request, paid for: `compute` runs once, and asked again the same bytes return uncharged.

    compute: makes the noisy tensors with `releases` gradients of noise multiplier σ, on batches that a record enters
    with probability `rate`; not called when the budget does not cover them. Raises BudgetSpent, and whatever the ledger
    raises; nothing has left then.
    """
    content = outbox.get(request)
    if content is None:
        ledger.require(releases, sigma, rate)
        content = _bytes(compute())
        outbox.put(request, content)
    tensors = safetensors.torch.load(content)
    ledger.charge(request, _digest(content), releases=releases, sigma=sigma, rate=rate, secure=secure)
    return tensors


def _bytes(tensors: Mapping[str, Tensor]) -> bytes:
    # Cloned, because safetensors refuses tensors that are views of one memory.
    copies = {name: tensor.detach().cpu().clone(memory_format=contiguous_format) for name, tensor in tensors.items()}
    return safetensors.torch.save(copies)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
