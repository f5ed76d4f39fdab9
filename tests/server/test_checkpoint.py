"""Checkpoints: whole or not at all, and never trusted unread."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fed_fsad.errors import CheckpointError
from server.checkpoint import Checkpoint, load_checkpoint, load_tensors, save_checkpoint
from server.standing import Standing

TENSORS: dict[str, dict[str, Tensor]] = {
    "d24fad": {"z/b": torch.randn(2, 3), "a/a": torch.randn(())}, "sdmad": {"c/t": torch.randn(4).double()},
}  # fmt: skip


def saved(folder: Path, round_: int = 3) -> Checkpoint:
    checkpoint = Checkpoint("run-1", round_, TENSORS, {"d24fad/z|m_t|z/b": torch.ones(2, 3)})
    save_checkpoint(folder, checkpoint)
    return checkpoint


def test_it_comes_back_bit_for_bit_in_the_order_of_the_model(tmp_path: Path) -> None:
    saved(tmp_path)
    got = load_checkpoint(tmp_path, "run-1", TENSORS)
    assert got is not None
    assert (got.run, got.round) == ("run-1", 3)
    for method, own in TENSORS.items():
        assert list(got.tensors[method]) == list(own)
        assert all(torch.equal(got.tensors[method][name], value) for name, value in own.items())
    assert torch.equal(got.moments["d24fad/z|m_t|z/b"], torch.ones(2, 3))


def test_no_checkpoint_is_none_and_the_latest_counts(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path, "run-1", TENSORS) is None
    saved(tmp_path, 1)
    saved(tmp_path, 2)
    got = load_checkpoint(tmp_path, "run-1", TENSORS)
    assert got is not None
    assert got.round == 2
    assert (tmp_path / "round-0001.safetensors").exists()


def flip_a_byte(folder: Path) -> None:
    path = folder / "round-0003.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def cut_short(folder: Path) -> None:
    path = folder / "round-0003.safetensors"
    path.write_bytes(path.read_bytes()[:40])


def remove(folder: Path) -> None:
    (folder / "round-0003.safetensors").unlink()


def garble_pointer(folder: Path) -> None:
    (folder / "latest.json").write_text("{")


def foreign_format(folder: Path) -> None:
    pointer = json.loads((folder / "latest.json").read_text())
    (folder / "latest.json").write_text(json.dumps({**pointer, "format": "other/1"}))


def nameless_run(folder: Path) -> None:
    pointer = json.loads((folder / "latest.json").read_text())
    del pointer["run"]
    (folder / "latest.json").write_text(json.dumps(pointer))


def wrong_round(folder: Path) -> None:
    pointer = json.loads((folder / "latest.json").read_text())
    (folder / "latest.json").write_text(json.dumps({**pointer, "round": 99}))


def empty_pointer(folder: Path) -> None:
    (folder / "latest.json").write_text("[]")


@pytest.mark.parametrize(
    "damage", [flip_a_byte, cut_short, remove, garble_pointer, foreign_format, nameless_run, wrong_round, empty_pointer]
)
def test_a_damaged_checkpoint_is_refused_in_one_sentence(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    saved(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match="restore the file from a copy"):
        load_checkpoint(tmp_path, "run-1", TENSORS)


def test_a_checkpoint_of_another_run_or_architecture_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    with pytest.raises(CheckpointError, match="another run"):
        load_checkpoint(tmp_path, "run-2", TENSORS)
    others: dict[str, dict[str, dict[str, Tensor]]] = {
        r"sdmad c/t differs: it holds float64 \(4,\), this version trains float64 \(5,\)": {
            **TENSORS, "sdmad": {"c/t": torch.zeros(5).double()},
        },
        r"sdmad c/t differs: it holds float64 \(4,\), this version trains float32 \(4,\)": {
            **TENSORS, "sdmad": {"c/t": torch.zeros(4)},
        },
        r"sdmad c/t differs: it holds float64 \(4,\), this version trains nothing": {
            **TENSORS, "sdmad": {"c/u": torch.zeros(4).double()},
        },
        r"other a/a differs: it holds nothing, this version trains float32 \(1,\)": {
            **TENSORS, "other": {"a/a": torch.zeros(1)},
        },
    }  # fmt: skip
    for words, other in others.items():
        with pytest.raises(CheckpointError, match=f"another architecture, {words}; restore"):
            load_checkpoint(tmp_path, "run-1", other)
    with pytest.raises(CheckpointError, match="another architecture, sdmad c/t differs"):
        load_checkpoint(tmp_path, "run-1", {"d24fad": TENSORS["d24fad"]})


def test_how_sites_stand_comes_back_with_the_round_and_is_not_trusted_unread(tmp_path: Path) -> None:
    standing = Standing(2, [])
    for site, status in (("a", "rejected"), ("b", "rejected"), ("b", "rejected"), ("c", "rejected"), ("c", "ok")):
        standing.note(site, status, "NaN")
    save_checkpoint(tmp_path, Checkpoint("run-1", 3, TENSORS, {}, standing.state()))
    got = load_checkpoint(tmp_path, "run-1", TENSORS)
    assert got is not None
    again = Standing(2, [])
    again.restore(got.standing)
    assert again.state() == standing.state() == {"strikes": {"a": 1, "b": 2}, "suspended": again.suspended}
    assert set(again.out) == {"b"}
    again.restore({})
    assert again.out == {}, "a checkpoint from before has no word on it"
    for damaged in ({"strikes": 3}, {"strikes": {"a": "x"}}, {"suspended": [1]}):
        with pytest.raises(CheckpointError, match="standing cannot be read"):
            again.restore(damaged)


def test_a_kill_between_the_two_writes_leaves_the_last_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path, 1)
    real = Path.replace

    def dies_at_the_pointer(self: Path, target: Path) -> Path:
        if target.name == "latest.json":
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", dies_at_the_pointer)
    with pytest.raises(KeyboardInterrupt):
        saved(tmp_path, 2)
    monkeypatch.undo()
    got = load_checkpoint(tmp_path, "run-1", TENSORS)
    assert got is not None
    assert got.round == 1


def test_a_checkpoint_of_other_texts_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, Checkpoint("run-1", 1, TENSORS, {}, {}, {"sdmad": "a"}))
    assert load_checkpoint(tmp_path, "run-1", TENSORS, {"sdmad": "a"}) is not None
    with pytest.raises(CheckpointError, match="trained with other sign lists than sdmad reads now; bring the run's"):
        load_checkpoint(tmp_path, "run-1", TENSORS, {"sdmad": "b"})
    with pytest.raises(CheckpointError, match="trained with other sign lists than sdmad reads now"):
        load_tensors(tmp_path, "run-1", "sdmad", {}, None, "b")
