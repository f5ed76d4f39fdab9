"""Features on disk: the bits that were written or nothing, whoever writes, whatever breaks."""

import logging
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fed_fsad.data.feature_store import FOLDER, FeatureStore
from fed_fsad.durable import alone

ROOM = 1 << 30


def tensors(seed: int = 0, count: int = 64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {"f1": torch.randn(count, 4, 4, generator=generator), "pooled": torch.randn(8, generator=generator)}


def same(found: dict[str, Tensor] | None, meant: dict[str, Tensor]) -> bool:
    return found is not None and found.keys() == meant.keys() and all(torch.equal(found[n], meant[n]) for n in meant)


def entries(path: Path) -> list[Path]:
    return sorted((path / FOLDER).glob("??/*.safetensors"))


def size(path: Path) -> int:
    return sum(entry.stat().st_size for entry in entries(path))


def test_what_was_written_is_read_by_another_store_bit_by_bit(tmp_path: Path) -> None:
    kept = {**tensors(), "half": tensors()["f1"].half(), "odd": torch.tensor([float("nan"), -0.0, float("inf")])}
    FeatureStore(tmp_path, ROOM).write("a", kept)
    found = FeatureStore(tmp_path, ROOM).read("a")
    assert found is not None
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in found.items()} == {
        name: (tensor.dtype, tensor.shape) for name, tensor in kept.items()
    }
    assert all(found[name].numpy().tobytes() == kept[name].numpy().tobytes() for name in kept)
    assert FeatureStore(tmp_path, ROOM).read("b") is None


def test_only_its_user_may_look(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        FeatureStore(tmp_path, ROOM).write("a", tensors())
    finally:
        os.umask(before)
    folder = tmp_path / FOLDER
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.glob("??"))] == [0o700, 0o700]
    assert stat.S_IMODE(entries(tmp_path)[0].stat().st_mode) == 0o600


@settings(max_examples=60, deadline=None)
@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.booleans())
def test_a_damaged_file_is_never_used(
    tmp_path_factory: pytest.TempPathFactory, at: float, flip: int, cut: bool
) -> None:
    path, meant = tmp_path_factory.mktemp("damaged"), tensors(count=1)
    store = FeatureStore(path, ROOM)
    store.write("a", meant)
    entry = entries(path)[0]
    content = bytearray(entry.read_bytes())
    place = int(at * len(content))
    content[place] ^= flip
    entry.write_bytes(content[:place] if cut else content)
    found = store.read("a")
    assert found is None or same(found, meant)  # a blank between two words of the header may change
    store.write("a", meant)
    assert same(store.read("a"), meant)


def test_a_file_of_another_key_is_not_used(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, ROOM)
    store.write("a", tensors(1))
    first = entries(tmp_path)[0]
    store.write("b", tensors(2))
    second = next(path for path in entries(tmp_path) if path != first)
    second.write_bytes(first.read_bytes())
    assert store.read("b") is None


def test_the_least_recently_used_make_room_and_the_bound_holds(tmp_path: Path) -> None:
    FeatureStore(tmp_path / "probe", ROOM).write("a", tensors())
    one = size(tmp_path / "probe")
    store = FeatureStore(tmp_path, 4 * one + one // 2)
    for number, key in enumerate("abcd"):
        store.write(key, tensors(number))
        os.utime(store._path(key), (number, number))
    assert store.read("a") is not None  # used again, so that b is now the oldest
    store.write("e", tensors(5))
    assert size(tmp_path) <= 4 * one + one // 2
    assert store.read("b") is None
    assert same(store.read("a"), tensors(0))
    assert same(store.read("e"), tensors(5))


def test_what_is_larger_than_the_cache_is_left_out(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, 100)
    store.write("a", tensors())
    assert entries(tmp_path) == []


def test_a_disk_that_fails_is_said_once_and_nothing_is_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = FeatureStore(tmp_path, ROOM)
    store.write("a", tensors(1))

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.WARNING), monkeypatch.context() as patched:
        patched.setattr(Path, "replace", full)
        store.write("b", tensors(2))
        store.write("c", tensors(3))
    assert [record.getMessage() for record in caplog.records] == [
        f"the feature cache {tmp_path / FOLDER} cannot be written (No space left on device); make room or "
        "correct machine.cache, until then features are computed anew"
    ]
    assert list((tmp_path / FOLDER).glob("**/*.part")) == []
    assert store.read("b") is None
    assert same(store.read("a"), tensors(1))


def test_a_folder_that_cannot_be_made_is_said_and_nothing_is_raised(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        store = FeatureStore(tmp_path / "file", ROOM)
        store.write("a", tensors())
    assert len(caplog.records) == 1
    assert store.read("a") is None


# ---- real processes

WRITER = """
import os, signal, sys
from pathlib import Path
from fed_fsad.data.feature_store import FeatureStore
from tests.data.test_feature_store import tensors
path, room, first, last, killed_at = sys.argv[1], *map(int, sys.argv[2:])
store, replace, calls = FeatureStore(Path(path), room), Path.replace, 0
def counted(self, target):
    global calls
    calls += 1
    if calls == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = counted
for number in range(first, last):
    store.write(str(number % 40), tensors(number % 40, 2000))
"""


def writer(path: Path, room: int, first: int, last: int, killed_at: int = 0) -> "subprocess.Popen[bytes]":
    """A process that writes; killed_at: the write of a file in which it dies, between its content and its name."""
    call = [sys.executable, "-c", WRITER, str(path), *map(str, (room, first, last, killed_at))]
    return subprocess.Popen(call, cwd=Path(__file__).resolve().parents[2])


@pytest.mark.slow
def test_a_writer_killed_in_the_middle_of_a_write_leaves_nothing_that_is_not_whole(tmp_path: Path) -> None:
    for killed_at in (1, 6):  # while it counts the bytes, and while it writes an entry
        assert writer(tmp_path, ROOM, 0, 40, killed_at).wait() == -signal.SIGKILL
        assert len(list((tmp_path / FOLDER).glob("**/*.part"))) == 1
        store = FeatureStore(tmp_path, ROOM)
        assert list((tmp_path / FOLDER).glob("**/*.part")) == []
        assert int(store._total.read_text()) == size(tmp_path)
    found = {key: store.read(str(key)) for key in range(40)}
    assert [key for key, row in found.items() if row is not None] == [0, 1]
    assert all(row is None or same(row, tensors(key, 2000)) for key, row in found.items())


@pytest.mark.slow
def test_two_processes_share_a_cache_within_its_bound(tmp_path: Path) -> None:
    room = 20 * 4 * 2000 * 16 + 20 * 500
    store = FeatureStore(tmp_path, room)
    both = [writer(tmp_path, room, 0, 120), writer(tmp_path, room, 17, 140)]
    while any(process.poll() is None for process in both):
        with alone(store._lock, 60):
            assert size(tmp_path) <= room
        for key in range(0, 40, 7):
            found = store.read(str(key))
            assert found is None or same(found, tensors(key, 2000))
    assert [process.wait() for process in both] == [0, 0]
    assert 15 <= len(entries(tmp_path)) <= 20
