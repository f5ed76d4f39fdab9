"""Who takes part: sites by name, with a deadline and reasons instead of waiting for ever."""

import time

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fed_fsad import __version__
from fed_fsad.errors import FederationError
from fed_fsad.messages import Reply
from server.roster import Roster
from simulations.grid import InProcessGrid


def roster(answers: list[Reply | None], expected: list[str], takes_s: float = 0) -> tuple[Roster, list[str]]:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        time.sleep(takes_s)
        answer = answers[int(context.node_config["partition-id"])]
        return Message(answer.pack() if answer else RecordDict(), reply_to=message)

    warnings: list[str] = []
    grid = InProcessGrid(app, [{"partition-id": i} for i in range(len(answers))], {})
    return Roster(grid, expected, warnings.append), warnings


def everybody(site: str) -> bool:
    return True


def test_sites_are_listed_by_name_not_by_node() -> None:
    found, warnings = roster([Reply("z", __version__), Reply("a", __version__)], ["a", "z"])
    assert list(found.present()) == ["a", "z"]
    assert found.present()["z"] < found.present()["a"]
    assert warnings == []


def test_missing_sites_are_named_after_the_deadline() -> None:
    found, _ = roster([Reply("a", __version__)], ["a", "b", "c"])
    with pytest.raises(FederationError, match=r"after 0\.05 s only 1 of the 3 .* missing: b, c; start them"):
        found.wait_for(3, 0.05, everybody)
    assert list(found.wait_for(1, 0.05, everybody)) == ["a"]


def test_a_first_answer_may_take_as_long_as_the_run_waits_for_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.roster.QUERY_TIMEOUT_S", 0.01)
    found, _ = roster([Reply("a", __version__)], ["a"], takes_s=0.2)
    assert list(found.wait_for(1, 10, everybody)) == ["a"]
    late, _ = roster([Reply("a", __version__)], ["a"], takes_s=0.2)
    assert late.present(0.01) == {}


def test_two_sites_of_one_name_stop_the_run() -> None:
    found, _ = roster([Reply("a", __version__), Reply("a", __version__)], ["a"])
    with pytest.raises(FederationError, match="two sites call themselves 'a'"):
        found.present()


def test_strangers_other_versions_broken_and_silent_nodes_are_left_out_with_a_reason() -> None:
    answers = [
        Reply("stranger", __version__), Reply("old", "0.0.1"), None, Reply("ill", __version__, "error", "its settings"),
        Reply("a", __version__),
    ]  # fmt: skip
    found, warnings = roster(answers, ["a", "old", "ill"])
    assert list(found.present()) == ["a"]
    text = "\n".join(warnings)
    assert all(
        word in text
        for word in (
            "'stranger' is not in the config",
            f"old runs fed_fsad 0.0.1 and the server {__version__}",
            "did not say",
            "ill cannot take part",
        )
    )
    found.present()
    assert len(warnings) == 4, "a node is asked once, not in every round"
