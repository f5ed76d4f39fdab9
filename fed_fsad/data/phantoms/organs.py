"""The six organs of the phantom world and the anomalies each can show."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from numpy.random import Generator

from fed_fsad.data.phantoms import brain_mri, chest_xray, fundus, histology, liver_ct, oct
from fed_fsad.data.phantoms.canvas import Drawing, Lesions
from fed_fsad.data.phantoms.pose import Border


@dataclass(frozen=True)
class Organ:
    """task: its name. modality: how a caption calls the image. kinds: its anomalies, in drawing order.

    draw: (size, lesions, anatomy stream) to a drawing. border: what lies beyond the drawing. mobility: how far this
    organ moves from patient to patient, relative to the others.
    """

    task: str
    modality: str
    kinds: tuple[str, ...]
    draw: Callable[[int, Lesions, Generator], Drawing]
    border: Border = "constant"
    mobility: float = 1.0


ORGANS: Mapping[str, Organ] = {
    organ.task: organ
    for organ in (
        Organ("brain_mri", "brain MRI", brain_mri.KINDS, brain_mri.draw),
        Organ("chest_xray", "chest X-ray", chest_xray.KINDS, chest_xray.draw, border="nearest"),
        Organ("fundus", "retinal fundus photograph", fundus.KINDS, fundus.draw),
        Organ("oct", "retinal OCT scan", oct.KINDS, oct.draw, border="nearest", mobility=0.35),
        Organ("liver_ct", "abdominal liver CT", liver_ct.KINDS, liver_ct.draw),
        Organ("histology", "histology patch", histology.KINDS, histology.draw, border="reflect"),
    )
}
