"""How much work a run is, where it lies, and whether it goes on from what is there."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from fed_fsad.assets import ROOT
from fed_fsad.errors import CheckpointError


class Preset(StrEnum):
    """cpu: what two cores do in an hour or two. gpu: what a data-centre GPU does in minutes."""

    CPU = "cpu"
    GPU = "gpu"


@dataclass(frozen=True)
class Amount:
    """images: the fixed set that is drawn once; none for families, which are drawn at every step.
    steps: gradient steps. batch: images per step.
    """

    images: int
    steps: int
    batch: int

    def changed(self, images: int | None, steps: int | None) -> "Amount":
        """With another number of images or steps where one is given."""
        return Amount(images or self.images, steps or self.steps, self.batch)


TEACHER = {Preset.CPU: Amount(0, 1600, 32), Preset.GPU: Amount(0, 6000, 128)}
DISTILLED = {Preset.CPU: Amount(4000, 12000, 32), Preset.GPU: Amount(40000, 20000, 256)}
STUDENT = {Preset.CPU: Amount(960, 400, 32), Preset.GPU: Amount(20000, 10000, 64)}
CLIP = {Preset.CPU: Amount(20000, 2400, 96), Preset.GPU: Amount(60000, 12000, 96)}


@dataclass(frozen=True)
class Run:
    """One run of the pipeline. work: folder of state files. out: where weights and card are written, by folder."""

    seed: int
    amount: Amount
    work: Path
    out: Path = ROOT
    resume: bool = False

    def state(self, name: str) -> Path:
        """The run's state file. Raises CheckpointError when it exists and the run is not to go on from it.

        What a plan does not say, the number of images, is in the file's name.
        """
        self.work.mkdir(parents=True, exist_ok=True)
        path = self.work / f"{name}-{self.amount.images}.pt"
        if path.exists() and not self.resume:
            raise CheckpointError(f"{path} is of an earlier run; add --resume to go on, or name another --work folder")
        return path

    @property
    def options(self) -> str:
        """The options that say all of it but the folders."""
        images = f" --images {self.amount.images}" if self.amount.images else ""
        return f"--seed {self.seed}{images} --steps {self.amount.steps}"
