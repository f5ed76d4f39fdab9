"""What the project knows of one image before a pixel is read."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
"""[3, S, S], values in [0, 1]."""
Mask = NDArray[np.bool_]
"""[S, S], True where the image is abnormal."""

FILE = "file "


class Source(Protocol):
    """Where pixels come from: a file, or a phantom generator. Reading is deterministic and has no side effect."""

    @property
    def name(self) -> str:
        """What to call the image on this site's own screen and in its own report; it never travels."""

    def image(self, size: int) -> Image:
        """The image as [3, size, size] float32 in [0, 1]. Raises DataError when it cannot be read."""

    def mask(self, size: int) -> Mask | None:
        """The pixels that are abnormal, [size, size], or None when nobody marked them (a normal image: all False)."""


@dataclass(frozen=True)
class Sample:
    """One image with what is known of it.

    id: a hash of the content (file bytes, or the phantom's recipe), never of the path: equal ids are equal images.
    task: organ and modality, e.g. "brain_mri"; supports and queries of one episode share it.
    categories: names of the anomalies in the image; empty means normal.
    patient: a salted hash or None when unknown; all images of a patient are one privacy record when it is known. The
    images of one file of unknown patient share an owner of their own, `of_file`.
    look: what of the settings changes its pixels; equal ids with equal looks are equal pixels.
    columns: (column, value) of a manifest's column `site` and of those that data.columns names, where they are filled;
    they can decide where a simulation puts the image, and nothing else.
    """

    id: str
    task: str
    categories: tuple[str, ...]
    patient: str | None
    source: Source
    look: str = ""
    columns: tuple[tuple[str, str], ...] = ()

    @property
    def patient_known(self) -> bool:
        """Whether `patient` stands for a patient, who may own several files."""
        return self.patient is not None and not self.patient.startswith(FILE)

    @property
    def is_normal(self) -> bool:
        """True when no anomaly is known."""
        return not self.categories


def of_file(digest: str) -> str:
    """The owner of all images in a file whose patient is unknown; `digest` is the hash of its content."""
    return FILE + digest[:16]
