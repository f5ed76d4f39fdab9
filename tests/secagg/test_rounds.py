"""Rounds under secure aggregation, both sides real: the sum is right, dropouts are survived, liars are named."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Array, ArrayRecord, Message
from torch import Tensor

from fed_fsad.errors import FederationError
from fed_fsad.privacy.guarantees import MASKED, guarantees
from fed_fsad.privacy.policy import Policy
from fed_fsad.secagg import wire
from tests.secagg.hospitals import Hospital, Tamper, altered, federation, mean, steps

STEP = 10.0 / 2**22
"""Largest error of a mean under the default settings: half a step of quantisation."""


def test_the_model_moves_by_the_mean_update_and_the_server_hears_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = federation(tmp_path, monkeypatch, steps(4), "federation.rounds=2")
    made.coordinator.train()
    for tensor in made.moved().values():
        assert float((tensor - 2 * 0.625).abs().max()) <= 2 * STEP + 1e-6
    assert {line["replies"] for line in made.lines("round")} == {4}
    for line in made.lines("site"):
        assert (line["status"], line["methods"]) == ("ok", {}), "no loss and no number of images"
    assert set(guarantees(list("abcd"), made.run.events()).values()) == {MASKED}
    for _, step, content in made.network.seen:
        assert set(content.array_records) == ({wire.VECTOR} if step == "mask" else set())
        assert not content.metric_records


@pytest.mark.parametrize("step", ["announce", "share", "mask", "open"])
def test_a_site_that_falls_silent_is_left_out_and_the_sum_of_the_others_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    made = federation(tmp_path, monkeypatch, steps(5))
    made.network.tamper = lambda site, now, reply: None if (site, now) == ("b", step) else reply
    made.coordinator.train()
    wanted = mean(0.25, 0.5, 0.75, 1.0, 1.25) if step == "open" else mean(0.25, 0.75, 1.0, 1.25)
    for tensor in made.moved().values():
        assert float((tensor - wanted).abs().max()) <= STEP + 1e-6
    status, reason = made.statuses().pop("b")
    assert status == "no reply"
    assert ("its update is in the sum" in reason) == (step == "open")
    assert {status for site, (status, _) in made.statuses().items() if site != "b"} == {"ok"}
    assert made.lines("round")[-1]["replies"] == (5 if step == "open" else 4)


@pytest.mark.parametrize("step", ["announce", "share", "mask", "open"])
def test_too_many_dropouts_fail_the_try_and_the_next_one_begins_with_fresh_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    made = federation(tmp_path, monkeypatch, steps(5), "federation.retries=1")
    tries = {"lost": 0}

    def lose(site: str, now: str, reply: Message) -> Message | None:
        if now == step and site in "bcd" and tries["lost"] < 3:
            tries["lost"] += 1
            return None
        return reply

    made.network.tamper = lose
    made.coordinator.train()
    assert [line["replies"] for line in made.lines("round")] == [0, 5]
    first = next(line for line in made.lines("site") if line["site"] == "a")
    assert first["status"] == "error"
    assert "no sum was made of this round's updates" in first["reason"]
    keys = [content.config_records[wire.KEY]["mask-key"] for _, now, content in made.network.seen if now == "announce"]
    assert len(set(keys)) == len(keys)
    assert float((made.moved()["affine/a"] - 0.75).abs().max()) <= STEP + 1e-6


def test_a_federation_that_never_reaches_the_threshold_fails_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = federation(tmp_path, monkeypatch, steps(4))
    made.network.tamper = lambda site, now, reply: None if site in "ab" and now == "mask" else reply
    with pytest.raises(FederationError, match="only 2 of the 3 sites that secure aggregation needs sent a masked"):
        made.coordinator.train()
    assert made.moved_nothing()


def test_a_round_asks_for_the_smallest_cohort_beside_the_replies_the_config_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = federation(tmp_path, monkeypatch, steps(4), "federation.min_replies=1", "privacy.secure.smallest=4")
    made.network.tamper = lambda site, now, reply: None if (site, now) == ("a", "announce") else reply
    with pytest.raises(FederationError, match="round 1 got 0 valid replies of the 4 it needs"):
        made.coordinator.train()


def flipped(reply: Message, name: str, place: int) -> Message:
    """One entry of a list of bytes with one bit changed."""
    found = reply.content.config_records[wire.KEY][name]
    assert isinstance(found, list)
    values: list[Any] = list(found)
    values[place] = values[place][:-1] + bytes([values[place][-1] ^ 1])
    return altered(reply, **{name: values})


def with_vector(reply: Message, dtype: str, more: int) -> Message:
    vector = reply.content.array_records[wire.VECTOR][wire.VECTOR].numpy()
    reply.content[wire.VECTOR] = ArrayRecord({wire.VECTOR: Array(vector.astype(dtype)[: len(vector) - more])})
    return reply


def unmasked(reply: Message) -> Message:
    reply.content["d24fad/affine"] = ArrayRecord({"affine/a": Array(torch.zeros(3).numpy())})
    return reply


def without_vector(reply: Message) -> Message:
    del reply.content[wire.VECTOR]
    return reply


LIES: dict[str, tuple[str, Callable[[Message], Message], str]] = {
    "key": ("announce", lambda reply: altered(reply, **{"mask-key": b"nonsense"}), "public key cannot be read"),
    "no key": ("announce", lambda reply: altered(reply, **{"mask-key": 7}), "mask-key of the message"),
    "one key": (
        "announce",
        lambda reply: altered(reply, **{"mask-key": reply.content.config_records[wire.KEY]["channel-key"]}),
        "two public keys are the same",
    ),
    "peers": ("share", lambda reply: altered(reply, sites=["a", "c", "d", "x"]), "does not share its secrets"),
    "lists": ("share", lambda reply: altered(reply, ciphertexts=[b"x"]), "no list of one entry per site"),
    "commitment": ("share", lambda reply: altered(reply, commitment=b"x"), "commitment has 1 bytes"),
    "tensors": ("share", unmasked, "tensors that are not masked"),
    "dtype": ("mask", lambda reply: with_vector(reply, "int64", 0), "masked vector is int64"),
    "length": ("mask", lambda reply: with_vector(reply, "uint32", 1), "masked vector is uint32"),
    "no vector": ("mask", without_vector, "masked vector is"),
    "shares": ("open", lambda reply: altered(reply, sites=["a", "c", "d", "e", "x"]), "other shares than it was asked"),
    "long share": ("open", lambda reply: altered(reply, shares=[bytes(2000)] * 5), "other shares than it was asked"),
    "wrong share": ("open", lambda reply: flipped(reply, "shares", 3), "share it gave of the secret of d is wrong"),
}


@pytest.mark.parametrize("kind", LIES)
def test_what_is_malformed_is_named_and_left_out_and_the_round_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    step, change, words = LIES[kind]
    made = federation(tmp_path, monkeypatch, steps(5))
    tamper: Tamper = lambda site, now, reply: change(reply) if (site, now) == ("b", step) else reply  # noqa: E731
    made.network.tamper = tamper
    made.coordinator.train()
    status, reason = made.statuses().pop("b")
    assert status == "rejected"
    assert words in reason
    wanted = mean(0.25, 0.5, 0.75, 1.0, 1.25) if step == "open" else mean(0.25, 0.75, 1.0, 1.25)
    for tensor in made.moved().values():
        assert float((tensor - wanted).abs().max()) <= STEP + 1e-6
    assert {status for site, (status, _) in made.statuses().items() if site != "b"} == {"ok"}


def test_a_site_that_announces_the_keys_of_another_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = federation(tmp_path, monkeypatch, steps(4))

    def borrowed(site: str, now: str, reply: Message) -> Message:
        if (site, now) != ("b", "announce"):
            return reply
        public = wire.keys_of(made.network.said("announce")["a"])
        return altered(reply, **{"mask-key": public.mask, "channel-key": public.channel})

    made.network.tamper = borrowed
    made.coordinator.train()
    assert made.statuses()["b"] == ("rejected", "its public key is that of another site")
    assert float((made.moved()["affine/a"] - mean(0.25, 0.75, 1.0)).abs().max()) <= STEP + 1e-6


def test_a_ciphertext_that_cannot_be_read_costs_its_maker_and_its_reader_the_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = federation(tmp_path, monkeypatch, steps(5))
    made.network.tamper = lambda site, now, reply: (
        flipped(reply, "ciphertexts", 0) if (site, now) == ("b", "share") else reply
    )
    made.coordinator.train()
    statuses = made.statuses()
    assert statuses["b"] == ("rejected", "a cannot read the shares it sent")
    assert statuses["a"] == ("error", "it cannot read the shares that came as those of b")
    assert float((made.moved()["affine/a"] - 1.0).abs().max()) <= STEP + 1e-6


def test_a_site_that_masks_with_other_numbers_than_it_shared_cannot_move_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def garbled(site: str, now: str, reply: Message) -> Message:
        if (site, now) == ("b", "mask"):
            vector = reply.content.array_records[wire.VECTOR][wire.VECTOR].numpy() + 2**30
            reply.content[wire.VECTOR] = ArrayRecord({wire.VECTOR: Array(vector.astype("uint32"))})
        return reply

    made = federation(tmp_path, monkeypatch, steps(4))
    made.network.tamper = garbled
    with pytest.raises(FederationError, match="nobody can tell which site is to blame"):
        made.coordinator.train()


def test_each_part_is_averaged_over_those_who_trained_it_and_one_that_two_sites_trained_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospitals = steps(5)
    for site in "cde":
        hospitals[site].parts = ("affine",)
    made = federation(tmp_path, monkeypatch, hospitals)
    made.coordinator.train()
    moved = made.moved()
    assert float((moved["affine/a"] - mean(0.25, 0.5, 0.75, 1.0, 1.25)).abs().max()) <= STEP + 1e-6
    assert float(moved["kernels/c"]) == 0.0
    assert any("d24fad kernels: trained by fewer sites" in line["text"] for line in made.lines("warning"))


def test_a_part_of_a_site_with_a_stricter_policy_waits_for_as_many_sites_as_the_policy_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospitals = steps(5)
    hospitals["a"].policy = Policy(smallest_cohort=4)
    for site in "de":
        hospitals[site].parts = ("affine",)
    made = federation(tmp_path, monkeypatch, hospitals)
    with pytest.raises(FederationError, match=r"a: its policy refuses \(part too rare\)"):
        made.coordinator.train()


def test_a_part_that_becomes_too_rare_by_a_dropout_is_not_unmasked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospitals = steps(5)
    for site in "de":
        hospitals[site].parts = ("affine",)
    made = federation(tmp_path, monkeypatch, hospitals, "federation.retries=1")
    lost = [True]
    made.network.tamper = lambda site, now, reply: (
        None if (site, now) == ("b", "mask") and lost and lost.pop() else reply
    )
    made.coordinator.train()
    first, second = made.lines("round")
    assert first["replies"] == 0
    assert "refuses (part too rare)" in first["rejected"]["a"]
    assert second["replies"] == 5
    assert float((made.moved()["kernels/c"] - 0.5).abs()) <= STEP + 1e-6


def test_no_sum_of_a_part_is_made_when_no_part_has_enough_sites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospitals = steps(3)
    hospitals["a"].parts, hospitals["b"].parts = ("affine",), ("kernels",)
    made = federation(tmp_path, monkeypatch, hospitals)
    with pytest.raises(FederationError, match="no part was trained by 3 sites"):
        made.coordinator.train()


def test_an_update_longer_than_the_bound_is_shortened_at_the_site_which_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hospitals = {**steps(3), "z": Hospital(1000.0)}
    made = federation(tmp_path, monkeypatch, hospitals, "privacy.secure.clip_norm=4")
    made.coordinator.train()
    moved = torch.cat([tensor.reshape(-1) for tensor in made.moved().values()])
    direction = torch.ones(8) / 8**0.5
    honest = sum(step * 8**0.5 for step in (0.25, 0.5, 0.75))
    assert [record.message for record in caplog.records if "shortened" in record.message] == [
        "the update is 2.83e+03 long and was shortened to clip_norm 4"
    ]
    assert torch.allclose(moved, direction * (honest + 4.0) / 4, atol=1e-5)


def test_a_policy_may_let_updates_leave_masked_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hospitals = {name: Hospital(1.0, policy=Policy(secure_aggregation=True)) for name in "abc"}
    plain = federation(tmp_path / "plain", monkeypatch, hospitals, "privacy.secure_aggregation=off")
    with pytest.raises(FederationError, match=r"its policy refuses \(not masked\)"):
        plain.coordinator.train()
    made = federation(tmp_path / "masked", monkeypatch, hospitals)
    made.coordinator.train()
    assert float((made.moved()["affine/a"] - 1.0).abs().max()) <= STEP + 1e-6


def test_a_site_whose_policy_wants_a_larger_cohort_stays_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hospitals = {**steps(4), "z": Hospital(1.0, policy=Policy(smallest_cohort=6))}
    made = federation(tmp_path, monkeypatch, hospitals)
    made.coordinator.train()
    assert made.statuses()["z"] == ("refused", "its policy refuses (cohort too small)")
    assert [site for site, _, _ in made.trained] == list("abcd"), "it knows before it trains, and nobody trains twice"
    assert float((made.moved()["affine/a"] - 0.625).abs().max()) <= STEP + 1e-6


def noiseless(total: Mapping[str, Tensor], *, cohort: int, **_: object) -> dict[str, Tensor]:
    return {name: tensor / cohort for name, tensor in total.items()}


def test_hospital_level_privacy_sees_the_sum_of_clipped_updates_and_divides_by_the_fixed_cohort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospitals = steps(4)
    hospitals["a"].parts = ("affine",)
    chosen = ("privacy.mode=hospital", "privacy.hospital={epsilon: 8, clip_norm: 4}")
    monkeypatch.setattr("server.hospital_dp.noisy_mean", noiseless)
    made = federation(tmp_path, monkeypatch, hospitals, *chosen)
    made.network.tamper = lambda site, now, reply: None if (site, now) == ("b", "mask") else reply
    made.coordinator.train()
    moved = made.moved()
    assert float((moved["affine/a"] - (0.25 + 0.75 + 1.0) / 4).abs().max()) <= STEP + 1e-6
    assert float((moved["kernels/c"] - (0.75 + 1.0) / 4).abs().max()) <= STEP + 1e-6
