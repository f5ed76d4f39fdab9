"""What the server received tells of no single update: tried on everything a real server saw, with positive controls.

Masks are random, so these tests have a chance to fail by accident; every bound below keeps it under 1e-9.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.common.secure_aggregation.crypto.shamir import combine_shares
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen
from scipy import stats

from fed_fsad.fields import MalformedMessage
from fed_fsad.secagg import crypto, wire
from fed_fsad.secagg.crypto import Vector
from fed_fsad.secagg.vector import Layout, Quantiser, read_sum
from tests.secagg.hospitals import Hospital, Network, federation
from tests.server.fakes import FakeScorer

SIZE = 20_000
CHANCE = 1e-11
QUANTISER = Quantiser(200.0, 2**22)
TENSORS = {"d24fad": {"affine/a": torch.zeros(SIZE)}}
LAYOUT = Layout.of(TENSORS)


def uniform(vector: Vector) -> float:
    """The smaller p-value of two chi² tests of uniformity: on the highest and on the lowest byte of every number."""
    found = []
    for shift in (24, 0):
        counts = np.bincount((vector >> shift) & 255, minlength=256)
        found.append(float(stats.chisquare(counts).pvalue))
    return min(found)


def heard(folder: Path, monkeypatch: pytest.MonkeyPatch, *values: float) -> Network:
    """The network after one round of sites that move everything by `values`."""
    monkeypatch.setattr(FakeScorer, "initial", lambda self: dict(TENSORS))
    hospitals = {chr(ord("a") + i): Hospital(value) for i, value in enumerate(values)}
    made = federation(folder, monkeypatch, hospitals, "privacy.secure.clip_norm=200")
    made.coordinator.train()
    assert float((made.moved()["affine/a"] - sum(values) / len(values)).abs().max()) < 1e-4
    return made.network


def secrets_told(network: Network, threshold: int = 3) -> dict[str, bytes]:
    """The mask seeds that the server puts together in the last step, by site."""
    shares = {site: wire.by_site(said, "shares") for site, said in network.said("open").items()}
    return {owner: combine_shares([own[owner] for own in shares.values()][:threshold]) for owner in network.sites}


def added(vectors: Mapping[str, Vector], sites: tuple[str, ...]) -> Vector:
    return np.sum([vectors[site] for site in sites], axis=0, dtype=np.uint32)  # type: ignore[no-any-return]


def test_a_masked_vector_is_uniform_whatever_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (heard(tmp_path / str(value), monkeypatch, value, 0.5, -0.25).vectors()["a"] for value in (0.0, 1.0))
    assert uniform(one) > CHANCE
    assert uniform(other) > CHANCE
    assert stats.ks_2samp(one, other).pvalue > CHANCE
    assert not np.array_equal(one, other)


def test_without_masks_the_server_would_read_every_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: the attacks of this page work where there is nothing to stop them."""
    monkeypatch.setattr(crypto, "mask", lambda seed, length: np.zeros(length, np.uint32))
    vector = heard(tmp_path, monkeypatch, 0.5, 1.0, -0.25).vectors()["b"]
    assert uniform(vector) == 0.0
    read = read_sum(vector, LAYOUT, QUANTISER, sites=1, smallest=1, current=TENSORS)
    assert torch.allclose(read.sums["d24fad|affine/a"], torch.ones(SIZE, dtype=torch.float64), atol=1e-4)


def test_fewer_vectors_than_the_cohort_add_up_to_noise_even_without_the_sites_own_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = heard(tmp_path, monkeypatch, 0.5, 1.0, -0.25, 0.75)
    vectors = network.vectors()
    seeds = secrets_told(network)
    stripped = {site: vector - crypto.mask(seeds[site], LAYOUT.length) for site, vector in vectors.items()}
    for count in (1, 2, 3):
        for some in combinations(network.sites, count):
            for total in (added(vectors, some), added(stripped, some)):
                assert uniform(total) > CHANCE, some
                with pytest.raises(MalformedMessage):
                    read_sum(total, LAYOUT, QUANTISER, sites=count, smallest=1, current=TENSORS)
    everybody = tuple(network.sites)
    assert uniform(added(vectors, everybody)) > CHANCE, "the sites' own masks are still on"
    whole = read_sum(added(stripped, everybody), LAYOUT, QUANTISER, sites=4, smallest=3, current=TENSORS)
    assert torch.allclose(whole.sums["d24fad|affine/a"], torch.full((SIZE,), 2.0, dtype=torch.float64), atol=1e-3)


def test_shares_below_the_threshold_give_no_secret_and_the_threshold_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = heard(tmp_path, monkeypatch, 0.5, 1.0, -0.25, 0.75)
    fixed = {site: wire.commitment_of(said) for site, said in network.said("share").items()}
    told = {site: wire.by_site(said, "shares") for site, said in network.said("open").items()}

    def right(secret: bytes) -> bool:
        return crypto.commitment(secret) == fixed["a"]

    shares = {holder: own["a"] for holder, own in told.items()}
    for some in combinations(shares, 2):
        assert crypto.join({holder: shares[holder] for holder in some}, 2, right) is None
    found = crypto.join({holder: shares[holder] for holder in "abc"}, 3, right)
    assert found is not None
    assert found[1] == []


def test_the_server_never_gets_shares_of_both_secrets_of_one_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeScorer, "initial", lambda self: dict(TENSORS))
    hospitals = {site: Hospital(0.5) for site in "abcde"}
    made = federation(tmp_path, monkeypatch, hospitals, "privacy.secure.clip_norm=200")
    made.network.tamper = lambda site, now, reply: None if (site, now) == ("b", "mask") else reply
    made.coordinator.train()
    fixed = {
        site: wire.commitment_of(content.config_records[wire.KEY])
        for site, content in made.network.step("share").items()
    }
    keys = {site: wire.keys_of(said) for site, said in made.network.said("announce").items()}
    for owner in "abcde":
        given = [
            wire.by_site(content.config_records[wire.KEY], "shares")[owner]
            for content in made.network.step("open").values()
        ]
        secret = combine_shares(given[:3])
        if owner == "b":
            assert crypto.belongs(secret, keys["b"].mask)
        else:
            assert crypto.commitment(secret) == fixed[owner]


def test_two_rounds_with_equal_updates_share_no_key_no_mask_and_no_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeScorer, "initial", lambda self: dict(TENSORS))
    made = federation(tmp_path, monkeypatch, {site: Hospital(0.5) for site in "abc"}, "federation.rounds=2")
    made.coordinator.train()
    sent: dict[str, list[Any]] = {"announce": [], "mask": []}
    for site, step, content in made.network.seen:
        if site == "a" and step == "announce":
            sent[step].append(wire.keys_of(content.config_records[wire.KEY]))
        elif site == "a" and step == "mask":
            sent[step].append(content.array_records[wire.VECTOR][wire.VECTOR].numpy())
    one, two = sent["announce"]
    assert not {*one} & {*two}
    first, second = sent["mask"]
    assert uniform(second - first) > CHANCE, "equal updates, so the difference is that of the masks"


def test_the_result_is_the_same_bits_though_no_mask_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hospitals = {site: Hospital(step) for site, step in (("a", 0.1), ("b", 0.2), ("c", -0.7))}
    ends = []
    for name in ("one", "two"):
        made = federation(tmp_path / name, monkeypatch, hospitals, "federation.rounds=3")
        made.coordinator.train()
        ends.append(made.moved())
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_flowers_generator_of_masks_has_32_bits_and_ours_reads_the_whole_seed() -> None:
    """Why crypto.py does not use it: two seeds that fold to the same 32 bits give the same mask."""
    one, two = bytes(range(32)), bytes([*range(4, 8), *range(4), *range(8, 32)])
    assert one != two
    assert np.array_equal(pseudo_rand_gen(one, 2**32, [(50,)])[0], pseudo_rand_gen(two, 2**32, [(50,)])[0])
    assert not np.array_equal(crypto.mask(one, 50), crypto.mask(two, 50))
