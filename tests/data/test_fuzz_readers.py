"""A share of what `python -m benchmarks.fuzz_readers` does, with the same limits on memory and time."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.fuzz_readers import damaged, fuzz, read, run_portion
from benchmarks.fuzz_seeds import valid_files
from fed_fsad.data.readers import open_file
from fed_fsad.data.settings import Reading


def test_every_seed_is_read_as_it_is(tmp_path: Path) -> None:
    seeds = valid_files(tmp_path)
    assert {suffix for suffix, _ in seeds} == {".png", ".jpg", ".tif", ".dcm", ".nii", ".nii.gz", ".csv"}
    for suffix, data in seeds:
        (tmp_path / f"input{suffix}").write_bytes(data)
        assert read(tmp_path / f"input{suffix}")


def test_changes_do_what_they_say() -> None:
    data, others = bytes(range(16)), [b"abcdefgh"]
    assert damaged(data, [("flip", 0.5, 255)], others) == data[:8] + b"\xff" + data[9:]
    assert damaged(data, [("word", 0.25, 1)], others) == data[:4] + b"\1\0\0\0" + data[8:]
    assert damaged(data, [("cut", 0.75, 0)], others) == data[:12]
    assert damaged(data, [("drop", 0.5, 3)], others) == data[:8] + data[11:]
    assert damaged(data, [("repeat", 0.5, 2)], others) == data[:10] + data[8:]
    assert damaged(data, [("splice", 0.5, 0)], others) == data[:8] + b"efgh"


def test_a_grey_tiff_that_only_one_library_can_read_has_three_channels(tmp_path: Path) -> None:
    grey = [data for suffix, data in valid_files(tmp_path) if suffix == ".tif"][5]
    path = tmp_path / "input.tif"
    path.write_bytes(damaged(grey, [("repeat", 9375 / (1 << 20), 13)] * 2, []))  # found by the fuzz
    (picture,) = [picture for _, picture in open_file(path, Reading()).pictures()]
    assert (picture.pixels.dtype, picture.pixels.shape[2:]) == (np.uint8, (3,))


@pytest.mark.slow
def test_damaged_files_raise_nothing_but_clear_errors(tmp_path: Path) -> None:
    found = fuzz(2500, tmp_path, first=0)
    assert found["inputs"] == 2500
    assert all(found["counts"][f"{suffix} refused"] > 10 for suffix in (".png", ".jpg", ".tif", ".dcm", ".nii", ".csv"))
    assert found["counts"][".dcm read"] > 10
    assert found["memory_mib"] < 1024


def test_a_portion_that_fails_stops_the_command(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(RuntimeError, match=r"portion 3 ended with 1; input: \[\]"):
        run_portion(5, 3, gone)
