"""The contact sheet: a row per class, normal first, masks outlined and never covered, the same from any order."""

from io import BytesIO

import numpy as np
from PIL import Image as Pillow

from fed_fsad.data.phantoms import phantom_set
from fed_fsad.data.samples import Sample
from fed_fsad.data.sheet import GAP, LABEL, OUTLINE, TILE, contact_sheet

SAMPLES = phantom_set("oct", 5, 6, 0, 1)


def sheet(samples: list[Sample], columns: int = 3, seed: int = 0) -> bytes:
    return contact_sheet(samples, columns, seed, lambda done, of: None)


def tiles(content: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """[rows, columns, TILE, TILE, 3]."""
    page = np.asarray(Pillow.open(BytesIO(content)))
    rows = (len(page) - GAP) // (LABEL + TILE + GAP)
    columns = (page.shape[1] - GAP) // (TILE + GAP)
    return np.array(
        [
            [page[top : top + TILE, left : left + TILE] for left in (GAP + c * (TILE + GAP) for c in range(columns))]
            for top in (GAP + LABEL + r * (LABEL + TILE + GAP) for r in range(rows))
        ]
    )


def test_a_row_per_class_with_normal_first_and_outlines_on_the_others() -> None:
    kinds = sorted({name for sample in SAMPLES for name in sample.categories})
    found = tiles(sheet(SAMPLES))
    assert found.shape == (1 + len(kinds), 3, TILE, TILE, 3)
    red = (found == OUTLINE).all(axis=-1).any(axis=(2, 3))
    assert not red[0].any()
    assert red[1:, 0].all()
    empty = (found == 255).all(axis=(2, 3, 4))
    assert not empty[0].any(), "five normal images fill a row of three"
    assert empty[1:].any(), "there are one or two images of each anomaly"


def test_an_image_is_shown_as_methods_see_it_but_for_its_outline() -> None:
    (sample,) = [one for one in SAMPLES if not one.is_normal][:1]
    (((tile,),),) = (tiles(sheet([sample], columns=1)),)
    mask = sample.source.mask(TILE)
    assert mask is not None
    seen = np.round(sample.source.image(TILE).transpose(1, 2, 0) * 255).astype(np.uint8)
    drawn = (tile == OUTLINE).all(axis=-1)
    assert (tile[~drawn] == seen[~drawn]).all()
    assert drawn.any()
    assert not (drawn & mask).any()


def test_the_seed_chooses_and_the_order_does_not() -> None:
    assert sheet(SAMPLES) == sheet(SAMPLES[::-1])
    assert sheet(SAMPLES) != sheet(SAMPLES, seed=1)
