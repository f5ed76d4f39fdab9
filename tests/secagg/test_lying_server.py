"""What a site refuses of a server, step by step: to unmask itself, to mask twice, to hide among too few."""

import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import Message

from fed_fsad.errors import FederationError, PolicyRefusal
from fed_fsad.fields import MalformedMessage
from fed_fsad.messages import Reply
from fed_fsad.secagg import site as protocol
from fed_fsad.secagg import wire
from fed_fsad.secagg.crypto import PublicKeys
from fed_fsad.secagg.site import Session, Terms, UnreadableShare
from fed_fsad.secagg.vector import Layout
from tests.secagg.hospitals import federation, steps

LAYOUT = Layout.of({"m": {"affine/a": torch.zeros(4)}})
PIECES = ("m|affine",)
Sealed = dict[str, dict[str, bytes]]


def terms(session: str = "0" * 32) -> Terms:
    known = {"run": "r", "round": 1, "attempt": 1, "smallest": 3, "clip_norm": 1.0, "target_range": 2**22}
    return Terms.model_validate({"session": session, "whole": False, **known})


def announced(names: str, session: str = "0" * 32) -> tuple[dict[str, Session], dict[str, PublicKeys]]:
    opened = {name: protocol.announce(terms(session), name) for name in names}
    return {name: both[0] for name, both in opened.items()}, {name: both[1] for name, both in opened.items()}


def shared(names: str, threshold: int, session: str = "0" * 32) -> tuple[dict[str, Session], Sealed]:
    """The sessions after the second step, and the ciphertexts by maker and target."""
    sessions, roll = announced(names, session)
    sealed: Sealed = {}
    for name in names:
        protocol.admit(sessions[name], roll, threshold, 1)
        sessions[name], sealed[name], _ = protocol.share(sessions[name], roll, threshold, LAYOUT, PIECES)
    return sessions, sealed


def masked(names: str, threshold: int) -> dict[str, Session]:
    sessions, sealed = shared(names, threshold)
    for name in names:
        mine = {other: sealed[other][name] for other in names if other != name}
        sessions[name], _ = protocol.mask(sessions[name], mine, np.zeros(LAYOUT.length, np.uint32), 1)
    return sessions


def test_a_site_does_not_hide_among_fewer_than_three_or_than_its_policy_says() -> None:
    sessions, roll = announced("abcd")
    protocol.admit(sessions["a"], roll, 3, 4)
    with pytest.raises(PolicyRefusal):
        protocol.admit(sessions["a"], roll, 3, 5)
    two = {name: roll[name] for name in "ab"}
    with pytest.raises(PolicyRefusal):
        protocol.admit(sessions["a"], two, 2, 1)
    with pytest.raises(ValueError, match="smallest"):
        Terms.model_validate({**terms().model_dump(), "smallest": 2})


@pytest.mark.parametrize("threshold", [-1, 0, 1, 2, 5])
def test_a_threshold_of_half_the_sites_or_less_or_more_than_all_is_refused(threshold: int) -> None:
    sessions, roll = announced("abcd")
    with pytest.raises(MalformedMessage, match="threshold"):
        protocol.admit(sessions["a"], roll, threshold, 1)


def test_a_roll_that_shows_other_or_equal_or_weak_keys_is_refused() -> None:
    sessions, roll = announced("abcd")
    weak = generate_private_key(SECP256R1()).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    for changed, words in (
        ({**roll, "a": roll["b"]}, "another key for this site"),
        ({name: roll[name] for name in "bcd"}, "another key for this site"),
        ({**roll, "c": roll["b"]}, "holds a key twice"),
        ({**roll, "c": PublicKeys(weak, roll["c"].channel)}, "P-384"),
        ({**roll, "c": PublicKeys(b"x", roll["c"].channel)}, "cannot be read"),
    ):
        with pytest.raises(MalformedMessage, match=words):
            protocol.admit(sessions["a"], changed, 3, 1)


def test_ciphertexts_of_strangers_of_another_session_or_for_another_site_are_not_used() -> None:
    sessions, sealed = shared("abcd", 3)
    _, old = shared("abcd", 3, "1" * 32)
    mine = {other: sealed[other]["a"] for other in "bcd"}
    vector = np.zeros(LAYOUT.length, np.uint32)
    with pytest.raises(MalformedMessage, match="never shown"):
        protocol.mask(sessions["a"], {**mine, "x": b""}, vector, 1)
    with pytest.raises(PolicyRefusal):
        protocol.mask(sessions["a"], {"b": mine["b"]}, vector, 1)
    for wrong in (old["b"]["a"], sealed["b"]["c"], sealed["c"]["a"], b"garbage"):
        with pytest.raises(UnreadableShare) as caught:
            protocol.mask(sessions["a"], {**mine, "b": wrong}, vector, 1)
        assert caught.value.sources == ["b"]
    with pytest.raises(PolicyRefusal):
        protocol.mask(sessions["a"], mine, vector, 5)
    assert not vector.any()


@pytest.mark.parametrize(
    ("active", "dropped"), [("abcd", "d"), ("abc", ""), ("abcde", ""), ("bcd", "a"), ("abcd", "a"), ("", "abcd")]
)
def test_a_site_tells_no_shares_for_lists_that_are_not_of_its_session(active: str, dropped: str) -> None:
    sessions = masked("abcd", 3)
    with pytest.raises(MalformedMessage, match="not those of this session"):
        protocol.open_(sessions["a"], set(active), set(dropped), 1)


def test_a_site_tells_no_shares_when_too_few_are_in_the_sum() -> None:
    sessions = masked("abcd", 3)
    with pytest.raises(PolicyRefusal):
        protocol.open_(sessions["a"], set("ab"), set("cd"), 1)
    with pytest.raises(PolicyRefusal):
        protocol.open_(sessions["a"], set("abc"), set("d"), 4)
    assert set(protocol.open_(sessions["a"], set("abc"), set("d"), 1)) == set("abcd")


def test_secrets_that_are_not_needed_any_more_are_forgotten() -> None:
    session = masked("abcd", 3)["a"]
    assert (session.mask_key, session.channel_key, session.seed, session.channels) == (b"", b"", b"", {})


def test_a_message_that_is_sent_again_gets_no_second_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = federation(tmp_path, monkeypatch, steps(3))
    network = made.network
    again: list[tuple[str, Message]] = []

    def repeat(site: str, step: str, reply: Message) -> Message:
        if site == "a" and step in ("share", "mask"):
            again.append((step, network.ask(network.asked[-1][2])))
        return reply

    network.tamper = repeat
    made.coordinator.train()
    again += [(step, network.ask(message)) for _, step, message in network.asked if step != "announce"]
    assert len(again) == 2 + 3 * 3
    for _, reply in again:
        told = Reply.unpack(reply.content)
        assert (told.status, told.reason) == ("error", "it cannot read the server's message; compare the versions")
        assert wire.KEY not in reply.content.config_records
    assert float((made.moved()["affine/a"] - 0.5).abs().max()) < 1e-4


def test_an_instruction_of_another_round_than_the_session_is_not_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = federation(tmp_path, monkeypatch, steps(3))
    network = made.network
    told: list[Reply] = []

    def mix(site: str, step: str, reply: Message) -> Message:
        if (site, step) == ("b", "share") and not told:
            message = network.asked[-1][2]
            own = network.said("announce") | {"b": network.ask(network.asked[1][2]).content.config_records[wire.KEY]}
            terms = wire.terms_of(network.asked[1][2].content)
            roll = wire.roll_values({name: wire.keys_of(said) for name, said in own.items()}, 2)
            message.content[wire.KEY] = wire.question("share", terms, roll)
            message.content.config_records["instruction"]["round"] = 2
            message.content.config_records["instruction"]["rounds"] = 2
            told.append(Reply.unpack(network.ask(message).content))
        return reply

    network.tamper = mix
    with pytest.raises(FederationError):
        made.coordinator.train()
    assert [(reply.status, reply.reason) for reply in told] == [
        ("error", "it cannot read the server's message; compare the versions")
    ]
    assert [site for site, _, _ in made.trained].count("b") == 1


def test_a_new_announcement_ends_the_old_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = federation(tmp_path, monkeypatch, steps(3))
    network = made.network

    def interrupt(site: str, step: str, reply: Message) -> Message:
        if (site, step) == ("a", "share"):
            first = next(message for named, now, message in network.asked if (named, now) == ("a", "announce"))
            network.ask(first)
        return reply

    network.tamper = interrupt
    with pytest.raises(FederationError, match="only 2 of the 3 sites"):
        made.coordinator.train()
    assert made.statuses()["a"][0] == "error"


def test_a_session_is_for_its_own_user_only_and_nothing_of_it_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = federation(tmp_path, monkeypatch, steps(3))
    kept: dict[str, set[str]] = {}

    def look(site: str, step: str, reply: Message) -> Message:
        for folder in (tmp_path / "state" / site / "secure").glob("*"):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            kept.setdefault(step, set()).update(path.name for path in folder.iterdir())
        return reply

    made.network.tamper = look
    made.coordinator.train()
    assert kept == {
        "announce": {"session.json"},
        "share": {"session.json", "vector.npy"},
        "mask": {"session.json"},
    }


@pytest.mark.parametrize("step", ["announce", "share", "mask"])
def test_a_site_that_lost_its_folder_between_two_steps_is_a_dropout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    made = federation(tmp_path, monkeypatch, steps(4))

    def lose(site: str, now: str, reply: Message) -> Message:
        if (site, now) == ("d", step):
            for path in (tmp_path / "state" / "d" / "secure").rglob("*.json"):
                path.unlink()
        return reply

    made.network.tamper = lose
    made.coordinator.train()
    assert made.statuses()["d"][0] == "error"
    wanted = 0.625 if step == "mask" else 0.5
    assert float((made.moved()["affine/a"] - wanted).abs().max()) < 1e-4
