"""The parts of a method that a site trains for itself: they lie in its state folder and never travel.

Every round starts from what the last round before it left, so a round that is asked for twice, or again after the
server was resumed, gives the same bits. A few rounds are kept for that.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fed_fsad.durable import replace
from fed_fsad.errors import CheckpointError
from fed_fsad.methods.method import digest

KEPT = 4
"""Rounds kept; the server may go back by as many, less one."""


@dataclass(frozen=True)
class LocalParts:
    """What one run's training of one method left at this site. state: the site's state folder."""

    state: Path
    run: str
    method: str

    def before(self, round_: int, start: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors with which training of `round_` starts: `start` where none was trained before.

        start: names, shapes and start values. Raises CheckpointError for a file that is damaged or of other shapes, and
        when training has gone on too far beyond that round to know.
        """
        rounds = self._rounds()
        earlier = [known for known in rounds if known < round_]
        if earlier:
            return self._read(self._path(earlier[-1]), start)[1]
        if rounds and self._read(self._path(rounds[0]), start)[0] > 0:
            raise CheckpointError(
                f"round {round_} needs this site's own parts of {self.method} as they were before it, and "
                f"{self._folder} keeps them from round {rounds[0]} on only; resume the run from a later checkpoint"
            )
        return dict(start)

    def any_before(self, round_: int) -> bool:
        """Whether anything was trained before `round_`."""
        return any(known < round_ for known in self._rounds())

    def forget(self, round_: int) -> None:
        """Drop what was trained after `round_` and is nobody's future any more."""
        for known in self._rounds():
            if known > round_:
                self._path(known).unlink()

    def keep(self, round_: int, tensors: Mapping[str, Tensor]) -> None:
        """Save what training of `round_` made. Later rounds, of a future that the server has left, are dropped first;
        then the oldest beyond those that are kept.
        """
        self.forget(round_)
        rounds = [known for known in self._rounds() if known < round_]
        base = rounds[-1] if rounds else 0
        held = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        about = {"run": self.run, "method": self.method, "base": base, "sha256": digest(held)}
        # as one text: safetensors writes several in another order each time
        replace(self._path(round_), save(held, {"about": json.dumps(about)}))
        for known in rounds[: max(0, len(rounds) + 1 - KEPT)]:
            self._path(known).unlink()

    def _rounds(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob("*.safetensors") if path.stem.isdecimal())

    def _path(self, round_: int) -> Path:
        return self._folder / f"{round_:06d}.safetensors"

    @property
    def _folder(self) -> Path:
        # the run's name comes from the server: hashed, it can only ever name a folder here
        return self.state / "local" / hashlib.sha256(self.run.encode()).hexdigest()[:16] / self.method

    def _read(self, path: Path, start: Mapping[str, Tensor]) -> tuple[int, dict[str, Tensor]]:
        """The round it was trained from (0 = the start), and its tensors."""
        remedy = "restore it from a copy, or remove the folder to start these parts anew"
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["about"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                base, intact = int(about["base"]), about["sha256"] == digest(tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: this site's own parts cannot be read; {remedy}") from error
        if not intact:
            raise CheckpointError(f"{path}: this site's own parts are damaged; {remedy}")
        if (about.get("run"), about.get("method")) != (self.run, self.method):
            raise CheckpointError(f"{path}: these parts are of another run; {remedy}")
        if {name: tensor.shape for name, tensor in tensors.items()} != {n: t.shape for n, t in start.items()}:
            raise CheckpointError(
                f"{path}: this site's own parts have other shapes than {self.method} trains; {remedy}"
            )
        return base, {name: tensors[name] for name in start}
