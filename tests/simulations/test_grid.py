"""The in-process grid: copies both ways, replies that say whose they are, a clock per site, failures without a text."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp

from simulations.grid import CLIENT_APP_RAISED, FIRST_NODE, InProcessGrid


def grid_of(app: ClientApp, nodes: int) -> InProcessGrid:
    return InProcessGrid(app, [{"partition-id": i} for i in range(nodes)], {"out": "x"})


def content() -> RecordDict:
    return RecordDict({"arrays": ArrayRecord({"a/x": Array(np.zeros(3))}), "config": ConfigRecord({"round": 1})})


def train_messages(grid: InProcessGrid, shared: RecordDict) -> list[Message]:
    return [Message(shared, dst_node_id=node, message_type=MessageType.TRAIN) for node in grid.get_node_ids()]


def test_a_client_that_spoils_its_message_spoils_neither_the_next_ones_nor_the_servers() -> None:
    app, kept = ClientApp(), RecordDict()
    seen: list[tuple[list[float], int]] = []

    @app.train()
    def train(message: Message, context: Context) -> Message:
        arrays, config = message.content["arrays"], message.content["config"]
        assert isinstance(arrays, ArrayRecord)
        assert isinstance(config, ConfigRecord)
        seen.append((arrays["a/x"].numpy().tolist(), int(str(config["round"]))))
        arrays["a/x"] = Array(np.full(3, 9.0))
        config["round"] = 99
        kept["arrays"] = arrays
        return Message(kept, reply_to=message)

    grid = grid_of(app, 3)
    shared = content()
    replies = list(grid.send_and_receive(train_messages(grid, shared)))
    assert seen == [([0.0] * 3, 1)] * 3
    assert shared["config"] == ConfigRecord({"round": 1})
    replies[0].content.array_records["arrays"]["a/x"] = Array(np.full(3, -1.0))
    assert kept.array_records["arrays"]["a/x"].numpy().tolist() == [9.0] * 3, "nor does the server reach into a client"
    assert replies[1].content.array_records["arrays"]["a/x"].numpy().tolist() == [9.0] * 3


def test_not_even_the_bytes_behind_an_array_can_be_exchanged_for_others() -> None:
    app, kept = ClientApp(), RecordDict()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        kept["arrays"] = message.content["arrays"]
        kept["config"] = ConfigRecord({"list": [1, 2]})
        return Message(kept, reply_to=message)

    grid = grid_of(app, 1)
    shared = content()
    sent = shared.array_records["arrays"]["a/x"].data
    (reply,) = grid.send_and_receive(train_messages(grid, shared))
    kept.array_records["arrays"]["a/x"].data = b"other"
    told = kept.config_records["config"]["list"]
    assert isinstance(told, list)
    told[0] = 9
    assert shared.array_records["arrays"]["a/x"].data == sent, "the site has changed what it was sent"
    assert reply.content.array_records["arrays"]["a/x"].data == sent, "and what it has sent"
    assert reply.content.config_records["config"]["list"] == [1, 2]
    assert reply.content.array_records["arrays"].object_id == ArrayRecord({"a/x": Array(np.zeros(3))}).object_id


def test_replies_say_whose_they_are_and_are_handed_out_once() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict({"me": ConfigRecord(dict(context.node_config))}), reply_to=message)

    grid = grid_of(app, 2)
    pushed = list(grid.push_messages(train_messages(grid, content())))
    assert len(set(pushed)) == 2
    replies = {reply.metadata.src_node_id: reply for reply in grid.pull_messages(pushed)}
    assert {node: reply.content["me"] for node, reply in replies.items()} == {
        FIRST_NODE + i: ConfigRecord({"partition-id": i}) for i in range(2)
    }
    assert list(grid.pull_messages(pushed)) == []


def test_an_exception_in_a_client_is_an_error_message_without_its_text() -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 0:
            raise RuntimeError("patient jane")
        return Message(RecordDict(), reply_to=message)

    grid = grid_of(app, 2)
    bad, good = grid.send_and_receive(train_messages(grid, content()))
    assert (bad.has_error(), bad.error.code, good.has_content()) == (True, CLIENT_APP_RAISED, True)
    assert "jane" not in str(bad.error.reason)


def test_every_site_has_a_clock_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 0.0}
    monkeypatch.setattr("simulations.grid.time.monotonic", lambda: clock["now"])
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        clock["now"] += 100.0 if context.node_config["partition-id"] == 1 else 4.0
        return Message(RecordDict(), reply_to=message)

    grid = grid_of(app, 4)
    replies = grid.send_and_receive(train_messages(grid, content()), timeout=5)
    assert [reply.metadata.src_node_id - FIRST_NODE for reply in replies] == [0, 2, 3]
