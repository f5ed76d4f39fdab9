"""Phantom images as samples: drawn on demand, the same bits from the same recipe (ours)."""

import functools
import hashlib
import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass

from numpy.random import Generator

from fed_fsad.data.phantoms.canvas import Drawing, Lesion
from fed_fsad.data.phantoms.organs import ORGANS
from fed_fsad.data.phantoms.pose import draw_pose, move
from fed_fsad.data.phantoms.styles import STYLES, scan
from fed_fsad.data.samples import Image, Mask, Sample
from fed_fsad.errors import ConfigError
from fed_fsad.names import suggestion
from fed_fsad.seeds import numpy_stream

GENERATOR_VERSION = 1
"""Part of every id: raise it with any change of the drawn pixels."""

HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {
        ("brain_mri", "extra-axial mass"),
        ("chest_xray", "consolidation"),
        ("fundus", "hard exudates"),
        ("oct", "subretinal fluid"),
        ("liver_ct", "hypodense metastases"),
        ("histology", "lymphocytic infiltrate"),
    }
)
"""(task, category) that pretraining never sees: one per organ, chosen so that most of its signs in the bundled sign
list "phantoms" also belong to categories that are seen (a test counts them)."""


@dataclass(frozen=True)
class PhantomSource:
    """The recipe of one image; a samples.Source.

    organ: a key of ORGANS. kinds: its anomalies, () for normal. style: position in STYLES. index: counts within
    (organ, seed, kinds). pose_jitter: 0 = all lie the same way, 1 = as in a clinic. lesion_contrast: below 1 fainter.
    """

    organ: str
    kinds: tuple[str, ...]
    style: int
    seed: int
    index: int
    pose_jitter: float = 1.0
    lesion_contrast: float = 1.0

    @property
    def name(self) -> str:
        """Organ, anomalies and index, e.g. "liver_ct steatosis 3"."""
        return f"{self.organ} {self._kinds_text} {self.index}"

    @property
    def id(self) -> str:
        """SHA-256 over the recipe and the generator's version."""
        recipe = json.dumps([GENERATOR_VERSION, asdict(self)], sort_keys=True)
        return hashlib.sha256(recipe.encode()).hexdigest()

    def image(self, size: int) -> Image:
        """The image, [3, size, size] float32 in [0, 1], drawn at that size."""
        return scan(_drawing(self, size).image, STYLES[self.style], self.stream("style"))

    def mask(self, size: int) -> Mask:
        """The abnormal pixels, [size, size]; all False for a normal image."""
        return _drawing(self, size).mask.copy()

    def stream(self, purpose: str) -> Generator:
        """The random stream of one purpose; neither style, pose nor contrast enters, so they leave anatomy alone."""
        return numpy_stream(self.seed, "phantom", self.organ, self._kinds_text, self.index, purpose)

    @property
    def _kinds_text(self) -> str:
        return "+".join(self.kinds) or "normal"


@functools.lru_cache(maxsize=2048)
def _drawing(source: PhantomSource, size: int) -> Drawing:
    """The patient before any scanner; cached because every method asks for the image, and evaluation for the mask."""
    return draw_patient(source, size, source.kinds)


def draw_patient(source: PhantomSource, size: int, shown: Collection[str]) -> Drawing:
    """The same patient with only the `shown` ones of its anomalies."""
    organ = ORGANS[source.organ]
    lesions = {kind: Lesion(source.stream(f"lesion/{kind}"), source.lesion_contrast) for kind in shown}
    drawing = organ.draw(size, lesions, source.stream("anatomy"))
    pose = draw_pose(source.stream("pose"), source.pose_jitter * organ.mobility)
    return move(drawing, pose, organ.border)


def phantom(
    organ: str,
    kinds: Sequence[str],
    style: int,
    seed: int,
    index: int,
    pose_jitter: float = 1.0,
    lesion_contrast: float = 1.0,
) -> Sample:
    """One image as a sample; nothing is drawn yet. Raises ConfigError for an unknown organ, anomaly or style."""
    known = kinds_of(organ)
    for kind in kinds:
        if kind not in known:
            raise ConfigError(f"phantom organ {organ!r} has no anomaly {kind!r}; {suggestion(kind, known)}")
    if not 0 <= style < len(STYLES):
        raise ConfigError(f"phantom style {style} does not exist; use 0 to {len(STYLES) - 1}.")
    ordered = tuple(kind for kind in known if kind in kinds)
    source = PhantomSource(organ, ordered, style, seed, index, float(pose_jitter), float(lesion_contrast))
    return Sample(source.id, organ, ordered, None, source)


def kinds_of(organ: str) -> tuple[str, ...]:
    """The anomalies of an organ. Raises ConfigError when there is no such organ."""
    if organ not in ORGANS:
        raise ConfigError(f"phantom organ {organ!r} does not exist; {suggestion(organ, ORGANS)}")
    return ORGANS[organ].kinds
