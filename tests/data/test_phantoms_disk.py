"""Phantoms on disk: a data set that the rest of the project reads like any other, the same files every time."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fed_fsad.data.phantoms import ORGANS
from fed_fsad.data.phantoms.disk import Order, write_phantoms
from fed_fsad.data.scan import scan
from fed_fsad.data.settings import FolderData
from fed_fsad.data.signs import load_signs
from fed_fsad.errors import ConfigError


def order(task: str = "oct", several: int = 1, seed: int = 0, abnormal: int = 5) -> Order:
    return Order(task, normal=3, abnormal=abnormal, size=48, style=1, several=several, seed=seed)


def nothing(done: int, of: int) -> None:
    assert done <= of


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_what_is_written_is_read_back_with_masks_and_signs(tmp_path: Path) -> None:
    write_phantoms(tmp_path, order(), nothing)
    found = scan(FolderData(kind="folder", root=tmp_path, task="oct"))
    assert (len(found.train), len(found.test), found.skipped) == (8, 8, ())
    for sample in (*found.train, *found.test):
        mask = sample.source.mask(48)
        assert mask is not None
        assert mask.any() != sample.is_normal
        assert sample.source.image(48).shape == (3, 48, 48)
    kinds = {name for sample in found.train for name in sample.categories}
    assert kinds <= set(ORGANS["oct"].kinds)
    assert kinds == set(load_signs(str(tmp_path / "signs.yaml"))["oct"].categories)
    with Image.open(tmp_path / "images/train/00000.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (48, 48))


def test_colour_stays_colour_and_several_anomalies_share_an_image(tmp_path: Path) -> None:
    write_phantoms(tmp_path, order("fundus", several=2, abnormal=7), nothing)
    found = scan(FolderData(kind="folder", root=tmp_path, task="fundus"))
    shown = [sample.categories for sample in found.train if not sample.is_normal]
    assert {len(own) for own in shown} == {2}
    assert len(set(shown)) == min(7, len(ORGANS["fundus"].kinds) * (len(ORGANS["fundus"].kinds) - 1) // 2)
    with Image.open(tmp_path / "images/test/00000.png") as image:
        assert image.mode == "RGB"
        assert np.ptp(np.asarray(image).astype(int), axis=-1).max() > 0


def test_the_same_order_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_phantoms(tmp_path / name, order(seed=seed), nothing)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    differ = [name for name, value in digests(tmp_path / "a").items() if digests(tmp_path / "c")[name] != value]
    assert {name.split("/")[0] for name in differ} == {"images", "masks"}
    images = [value for name, value in digests(tmp_path / "a").items() if name.startswith("images")]
    assert len(set(images)) == len(images), "train and test are drawn apart"


def test_orders_that_cannot_be_drawn(tmp_path: Path) -> None:
    for wrong, message in (
        (order("octt"), "phantom organ 'octt' does not exist; did you mean 'oct'"),
        (order(several=9), "oct has 4 anomalies and not 9 at once; lower --several"),
        (Order("oct", 1, 1, 48, 99, 1, 0), "phantom style 99 does not exist"),
    ):
        with pytest.raises(ConfigError, match=message):
            write_phantoms(tmp_path / "new", wrong, nothing)
    (tmp_path / "mine.txt").touch()
    with pytest.raises(ConfigError, match="is not empty; choose another --out"):
        write_phantoms(tmp_path, order(), nothing)
