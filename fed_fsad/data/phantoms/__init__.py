"""The phantom world: medical-looking images of six organs with 25 anomalies, masks, captions and scanner styles."""

from fed_fsad.data.phantoms.captions import caption
from fed_fsad.data.phantoms.organs import ORGANS, Organ
from fed_fsad.data.phantoms.sets import of_patients, phantom_set
from fed_fsad.data.phantoms.styles import STYLES, Style
from fed_fsad.data.phantoms.world import HELD_OUT, PhantomSource, phantom

__all__ = [
    "HELD_OUT",
    "ORGANS",
    "STYLES",
    "Organ",
    "PhantomSource",
    "Style",
    "caption",
    "of_patients",
    "phantom",
    "phantom_set",
]
