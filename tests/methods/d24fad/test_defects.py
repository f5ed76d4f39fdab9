"""The defects of the protocol, which live in the benchmark alone: each does what its name says."""

import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter

from benchmarks import d24fad_defects as defects
from fed_fsad.data.samples import Sample
from fed_fsad.methods.d24fad import Settings
from tests.methods.d24fad.helpers import Grey


def samples(normal: int, abnormal: int) -> list[Sample]:
    kinds = [()] * normal + [("lesion",)] * abnormal
    return [Sample(f"i{i}", "oct", kind, None, Grey()) for i, kind in enumerate(kinds)]


def peaks(values: list[float]) -> defects.Maps:
    """Maps [N, 4, 4] whose maxima are these."""
    return np.array(values, dtype=np.float32)[:, None, None] * np.ones((1, 4, 4), dtype=np.float32)


def test_the_blur_across_the_batch_is_scipys_over_three_axes() -> None:
    """Golden test 4, batch by batch, the last one incomplete."""
    raw = np.random.default_rng(0).random((21, 12, 12))
    plane = np.stack([gaussian_filter(one, 2.0) for one in raw])
    found = defects.batch3d(plane)
    assert np.allclose(found[:16], gaussian_filter(raw[:16], (4.0, 2.0, 2.0)), atol=1e-10)
    assert np.allclose(found[16:], gaussian_filter(raw[16:], (4.0, 2.0, 2.0)), atol=1e-10)


def test_it_leaks_labels_when_files_lie_in_order_of_their_class() -> None:
    """Scores of pure chance become a detector."""
    rng = np.random.default_rng(1)
    plain, blurred = defects.Variant("plain"), defects.Variant("a", batch3d=True)
    gained = []
    for _ in range(20):
        noise = rng.random(64) + np.repeat([0.0, 0.1], 32)
        epochs = [[peaks(noise.tolist())]]
        gained.append(defects.figure(blurred, epochs, samples(32, 32)) - defects.figure(plain, epochs, samples(32, 32)))
    assert np.mean(gained) > 0.15


def test_the_best_epoch_is_never_below_the_last() -> None:
    good, bad = peaks([0.0, 0.0, 1.0, 1.0]), peaks([1.0, 0.0, 0.0, 1.0])
    assert defects.figure(defects.Variant("last"), [[good], [bad]], samples(2, 2)) == 0.5
    assert defects.figure(defects.Variant("b", best_test=True), [[good], [bad]], samples(2, 2)) == 1.0


def test_the_last_incomplete_batch_is_dropped_and_few_images_leave_nothing() -> None:
    maps = peaks([0.0] * 10 + [1.0] * 6 + [0.0] * 4)
    dropped = defects.Variant("c", drop_last=True)
    assert defects.figure(defects.Variant("all"), [[maps]], samples(10, 10)) == 0.8
    assert defects.figure(dropped, [[maps]], samples(10, 10)) == 1.0
    assert math.isnan(defects.figure(dropped, [[peaks([0.0, 1.0])]], samples(1, 1)))


def test_a_label_from_the_path_calls_ungood_good() -> None:
    maps = peaks([0.0, 1.0])
    assert math.isnan(defects.figure(defects.Variant("i", path_labels=True), [[maps]], samples(1, 1)))


def test_every_variant_is_a_setting_and_no_setting_is_a_protocol() -> None:
    assert len({defects.settings_of(variant) for variant in defects.VARIANTS}) == 8
    for key in ("smoothing", "select", "drop_last", "labels"):
        with pytest.raises(ValidationError, match="Extra inputs"):
            Settings.model_validate({key: "batch3d"})


def test_the_table_states_means_and_changes() -> None:
    cells = {("oct", 1): 0.5, ("oct", 2): 0.7}
    first, second = defects.VARIANTS[0].label, "x"
    found = {first: cells, second: {key: value + 0.1 for key, value in cells.items()}}
    found["y"] = dict.fromkeys(cells, math.nan)
    assert defects.table(found, ["oct"], [1, 2]).splitlines()[2:] == [
        f"| {first} | 0.600 | 0.600 ± 0.141 |  |",
        "| x | 0.700 | 0.700 ± 0.141 | +0.100 ± 0.000 |",
        "| y | undefined | undefined | |",
    ]


@pytest.mark.slow
def test_the_command_measures_every_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"TRAIN": 4, "POOL": 4, "TEST": 8, "STEPS": 2, "EPOCHS": 2, "DRAWS": 1}.items():
        monkeypatch.setattr(defects, name, value)
    found = defects.measure(("oct",), (1,))
    assert found.keys() == {variant.label for variant in defects.VARIANTS}
    assert all(0 <= value <= 1 or math.isnan(value) for cells in found.values() for value in cells.values())
