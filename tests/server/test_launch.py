"""Handing a run to a SuperLink, following it, taking it up again: Flower's command line is played, the rest is real."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fed_fsad.config import Config, load_config
from fed_fsad.daemon import Daemon
from fed_fsad.errors import DataError, FederationError
from fed_fsad.progress import PlainProgress
from fed_fsad.rundir import RunDir
from server import superlink
from server.current import abandon
from server.kit import ServerKit
from server.launch import run
from tests.provision.conftest import made


class Flower:
    """What `flwr` was asked, and what it answers: a run goes on as long as `going` says."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.going = 0
        self.work: Callable[[], None] = lambda: None
        self.pid: int | None = 7

    def __call__(self, _: object, *arguments: str) -> dict[str, Any]:
        self.asked.append(arguments[0])
        if arguments[0] == "run":
            return {"run-id": "11"}
        if arguments[0] == "list":
            self.going -= 1
            if self.going < 0:
                self.work()
            status = "running" if self.going >= 0 else "finished:completed"
            return {"runs": [{"status": status, "status-details": "a bad import"}]}
        return {}


@pytest.fixture
def flower(monkeypatch: pytest.MonkeyPatch) -> Flower:
    played = Flower()
    monkeypatch.setattr(superlink.SuperLink, "flwr", lambda self, *arguments: played(self, *arguments))
    monkeypatch.setattr(Daemon, "pid", lambda self: played.pid)
    monkeypatch.setattr(superlink, "STATUS_S", 0.0)
    monkeypatch.setattr(superlink, "POLL_S", 0.0)
    return played


@pytest.fixture
def kit(tmp_path: Path) -> ServerKit:
    return ServerKit.open(made(tmp_path).server)


@pytest.fixture
def config(kit: ServerKit) -> Config:
    return load_config(kit.folder / "federation.yaml")


def ending(out: Path, status: str, error: str | None = None) -> Callable[[], None]:
    return lambda: RunDir(out).write_summary({"status": status, "error": error})


def test_a_run_is_handed_over_whole_and_followed_to_its_end(kit: ServerKit, config: Config, flower: Flower) -> None:
    out = kit.folder / "runs" / "one"
    flower.going, flower.work = 2, ending(out, "completed")
    assert run(kit, config, out, "fresh", PlainProgress()).summary()["status"] == "completed"
    assert flower.asked == ["run", "list", "list", "list"]
    handed = tomllib.loads((kit.folder / "flower" / "run.toml").read_text())
    assert handed == {"config": str(out / "config.yaml"), "out": str(out), "resume": "require"}
    assert RunDir(out).config() == config


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("too few sites; start them", "too few sites; start them"),
        (None, r"Flower ended the run early \(a bad import\); see .*superlink\.log"),
    ],
)
def test_a_run_that_does_not_complete_is_an_error_with_its_own_words(
    kit: ServerKit, config: Config, flower: Flower, error: str | None, said: str
) -> None:
    out = kit.folder / "runs" / "one"
    flower.work = ending(out, "failed" if error else "running", error)
    with pytest.raises(FederationError, match=said):
        run(kit, config, out, "fresh", PlainProgress())


def test_nothing_is_trained_over_another_run_or_twice(kit: ServerKit, config: Config, flower: Flower) -> None:
    out = kit.folder / "runs" / "one"
    flower.work = ending(out, "completed")
    run(kit, config, out, "fresh", PlainProgress())
    with pytest.raises(DataError, match="already holds a run; add --resume auto"):
        run(kit, config, out, "fresh", PlainProgress())
    flower.asked.clear()
    assert run(kit, config, out, "require", PlainProgress()).path == out
    assert "run" not in flower.asked, "it was completed already"


def test_a_run_whose_follower_was_lost_is_followed_again(kit: ServerKit, config: Config, flower: Flower) -> None:
    out = kit.folder / "runs" / "one"
    RunDir.create(out, config)
    kit.var.mkdir()
    (kit.var / "current-run.json").write_text(json.dumps({"run": "11", "out": str(out)}))
    flower.going = 99
    with pytest.raises(
        FederationError, match=r"a run goes on in .*one; wait for it, or follow it with --out .*--resume"
    ):
        run(kit, config, kit.folder / "runs" / "two", "auto", PlainProgress())
    with pytest.raises(FederationError, match="a run goes on"):
        run(kit, config, out, "fresh", PlainProgress())
    flower.asked.clear()
    flower.going, flower.work = 2, ending(out, "completed")
    run(kit, config, out, "auto", PlainProgress())
    assert set(flower.asked) == {"list"}, "it is not handed over a second time"


def test_a_superlink_that_starts_ends_what_an_earlier_one_was_busy_with(
    kit: ServerKit, config: Config, flower: Flower
) -> None:
    out = kit.folder / "runs" / "one"
    RunDir.create(out, config)
    kit.var.mkdir()
    (kit.var / "current-run.json").write_text(json.dumps({"run": "10", "out": str(out)}))
    flower.going, flower.work = 99, ending(out, "completed")
    abandon(kit)
    assert flower.asked == ["stop"]
    flower.going = 0
    run(kit, config, out, "auto", PlainProgress())
    assert flower.asked == ["stop", "run", "list"], "it is handed over anew, not followed"


def test_ctrl_c_ends_the_run_at_the_superlink(kit: ServerKit, config: Config, flower: Flower) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    flower.work = interrupted
    with pytest.raises(KeyboardInterrupt):
        run(kit, config, kit.folder / "runs" / "one", "fresh", PlainProgress())
    assert flower.asked == ["run", "list", "stop"]


def test_a_flower_that_cannot_be_asked_is_asked_again_and_a_dead_one_is_named(
    kit: ServerKit, config: Config, flower: Flower
) -> None:
    failures = 0

    def stumbling() -> None:
        nonlocal failures
        failures += 1
        if failures < superlink.PATIENCE:
            raise FederationError("a busy moment")
        ending(kit.folder / "runs" / "one", "completed")()

    flower.work = stumbling
    assert run(kit, config, kit.folder / "runs" / "one", "fresh", PlainProgress()).status == "completed"

    def dead() -> None:
        flower.pid = None
        raise FederationError("no connection")

    (kit.var / "superlink.log").write_text("killed\n")
    (kit.var / "current-run.json").unlink()
    flower.work = dead
    with pytest.raises(
        FederationError, match=r"the SuperLink has ended; .*ends with: killed; .*go on with --resume auto"
    ):
        run(kit, config, kit.folder / "runs" / "two", "fresh", PlainProgress())
