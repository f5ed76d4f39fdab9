"""The run directory: nothing written is lost, half-written things are never read, another config is refused by key."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed_fsad.config import Config, parse_config
from fed_fsad.durable import replace
from fed_fsad.errors import CheckpointError, DataError
from fed_fsad.rundir import ROOT, RunDir, first_difference, from_root

TEXT = """
name: tiny
data: {kind: phantoms}
hospitals: [{name: north, holds: {organs: [oct]}}]
methods: {d24fad: {teacher: {name: random}}}
"""


def config(*overrides: str) -> Config:
    return parse_config(TEXT, "tiny.yaml", overrides)


def test_a_run_is_created_once_and_resumed_with_the_same_config(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path / "run", config())
    assert RunDir.resume(tmp_path / "run", config()).run_id == run.run_id
    assert run.config() == config()
    with pytest.raises(DataError, match="already holds a run; add --resume auto"):
        RunDir.create(tmp_path / "run", config())


def test_another_config_is_refused_by_the_name_of_the_first_difference(tmp_path: Path) -> None:
    RunDir.create(tmp_path, config())
    with pytest.raises(CheckpointError, match=r"hospitals\.0\.holds\.normal was 48 and is 7"):
        RunDir.resume(tmp_path, config("hospitals.north.holds.normal=7"))
    with pytest.raises(CheckpointError, match=r"seed was 0 and is 1"):
        RunDir.resume(tmp_path, config("seed=1", "federation.rounds=9"))


def test_resuming_where_nothing_lies_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run to resume"):
        RunDir.resume(tmp_path, config())


def test_events_are_on_disk_line_by_line_and_nan_is_null(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, config())
    run.log({"kind": "a", "values": [float("nan"), 1.0], "nested": {"x": float("inf")}})
    run.log({"kind": "b"})
    assert (tmp_path / "metrics.jsonl").read_text().splitlines()[0] == (
        '{"kind": "a", "values": [null, 1.0], "nested": {"x": null}}'
    )
    assert [event["kind"] for event in run.events()] == ["a", "b"]


def test_a_line_cut_short_by_a_kill_is_not_read_and_does_not_spoil_the_next(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, config())
    run.log({"kind": "a"})
    with (tmp_path / "metrics.jsonl").open("a") as handle:
        handle.write('{"kind": "torn", "val')
    assert [event["kind"] for event in run.events()] == ["a"]
    resumed = RunDir.resume(tmp_path, config())
    resumed.log({"kind": "b"})
    assert [event["kind"] for event in resumed.events()] == ["a", "b"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    replace(path, b"old")

    def full_disk(self: Path, target: Path) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        replace(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in tmp_path.iterdir()] == ["summary.json"]


def test_a_damaged_line_among_others_is_named_and_nothing_is_changed(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, config())
    for text in ('{"kind": "a"}\n{"kind": "b', "[]\n", '{"no": "kind"}\n'):
        (tmp_path / "metrics.jsonl").write_text('{"kind": "a"}\n' + text + '{"kind": "c"}\n')
        before = (tmp_path / "metrics.jsonl").read_bytes()
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl: line [23] is damaged"):
            RunDir.resume(tmp_path, run.config())
        assert (tmp_path / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_a_run_without_its_identity_is_refused(tmp_path: Path, content: str | None) -> None:
    run = RunDir.create(tmp_path, config())
    (tmp_path / "environment.json").unlink()
    if content is not None:
        (tmp_path / "environment.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"environment\.json cannot be read"):
        RunDir.resume(tmp_path, run.config())


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/run cannot be written \(.*\); choose another --out"):
        RunDir.create(tmp_path / "file" / "run", config())


def test_a_resumed_run_is_running_until_it_ends(tmp_path: Path) -> None:
    run = RunDir.create(tmp_path, config())
    run.write_summary({"status": "failed", "error": "nobody came", "rounds": 2})
    assert RunDir.resume(tmp_path, config()).summary() == {"status": "running", "error": None, "rounds": 2}
    run.write_summary({"status": "completed"})
    with pytest.raises(CheckpointError):
        RunDir.resume(tmp_path, config("seed=1"))
    assert RunDir.resume(tmp_path, config()).summary() == {"status": "completed"}


def test_a_run_is_opened_by_the_mode_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no run to resume; use --resume fresh or auto"):
        RunDir.open(tmp_path / "run", config(), "require")
    assert not (tmp_path / "run").exists()
    first = RunDir.open(tmp_path / "run", config(), "auto")
    assert RunDir.open(tmp_path / "run", config(), "auto").run_id == first.run_id
    assert RunDir.open(tmp_path / "run", config(), "require").run_id == first.run_id
    with pytest.raises(DataError, match="already holds a run; add --resume auto"):
        RunDir.open(tmp_path / "run", config(), "fresh")
    assert RunDir.open(tmp_path / "other", config(), "fresh").run_id != first.run_id


def test_flowers_apps_find_the_same_folder_wherever_they_are_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert from_root("runs/flwr") == ROOT / "runs" / "flwr"
    assert from_root(str(tmp_path / "x")) == (tmp_path / "x").resolve()
    assert (ROOT / "fed_fsad").is_dir()


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(plain, plain)
def test_first_difference_is_found_exactly_when_there_is_one(old: object, new: object) -> None:
    same_without_none = json.dumps(old, sort_keys=True) == json.dumps(new, sort_keys=True)
    if same_without_none:
        assert first_difference(old, new) is None
    if first_difference(old, new) is not None:
        assert not same_without_none
    assert first_difference({"a": {"b": [1, {"c": 2}]}}, {"a": {"b": [1, {"c": 3}]}}) == "a.b.1.c was 2 and is 3"
