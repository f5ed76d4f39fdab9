"""An abnormal image among the supports is noticed, by the embedded teacher on phantoms."""

from dataclasses import replace

from fed_fsad.data.phantoms import phantom_set
from fed_fsad.methods.d24fad import Settings, build
from fed_fsad.methods.threshold import misfits, warnings
from fed_fsad.residents import rows_of

SLIPPED_IN = 6


def test_an_abnormal_image_among_eight_normal_ones_is_warned_of_well_above_chance() -> None:
    method = build(Settings(), 0)
    encoded = rows_of(method)
    images = phantom_set("oct", 8, SLIPPED_IN, 0, seed=5)
    normals, abnormal = images[:8], images[8:]
    clean = method.fit_support(encoded(normals), "oct")
    assert warnings(method, clean, [x.source.name for x in normals]) == ()
    highest, found = 0, 0
    for stranger in abnormal:
        assert not stranger.is_normal
        bank = clean.add(method.fit_support(encoded([replace(stranger, categories=())]), "oct"))
        scores = method.support_scores(bank)
        assert scores is not None
        highest += int(scores.argmax()) == 8
        found += 8 in misfits(scores)
    # By chance one in nine is the highest, and fewer than one in a hundred is warned of.
    assert highest >= SLIPPED_IN / 2
    assert found >= 1
