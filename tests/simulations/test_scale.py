"""A thousand hospitals on one machine: what grows with the cohort, and that nothing of it changes a bit."""

import tracemalloc
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from flwr.common.config import parse_config_args
from flwr.supercore.utils import simulation_config_from_json
from torch import Tensor

import server.aggregate
import server.rounds
from clients import site
from fed_fsad import __version__, methods, residents, rundir
from fed_fsad.config import Federation, parse_config
from fed_fsad.config.schema import OF_THE_MEAN
from fed_fsad.errors import FederationError
from fed_fsad.messages import Reply
from fed_fsad.progress import PlainProgress
from fed_fsad.rundir import RunDir
from server.aggregate import Aggregator
from server.checkpoint import load_checkpoint
from server.shelf import Shelf
from simulations.grid import InProcessGrid
from simulations.inprocess import run_inprocess
from simulations.ray import resources
from tests.server.fakes import FakeScorer, altered, client_of, config_of, coordinator, honest, lines

UPDATE = 1 << 18
"""Bytes of an update in the test of memory."""


def replies(count: int) -> list[Reply]:
    """Sites that send different values, shapes and dtypes, a number without dimensions among them; every fifth keeps
    its kernels.
    """
    found = []
    for place in range(count):
        draw = torch.Generator().manual_seed(place)
        own: dict[str, Tensor] = {
            "affine/a": torch.randn(7, 3, generator=draw),
            "affine/b": torch.randn((), generator=draw),
        }
        own["affine/half"] = torch.randn(5, generator=draw).half()
        if place % 5:
            own["kernels/c"] = torch.randn(11, generator=draw)
        found.append(Reply(f"s{place:03}", __version__, tensors={"m": own}, examples={"m": 3 + 7 * place % 13}))
    return found


def two_rounds(settings: Federation) -> list[dict[str, Tensor]]:
    """What becomes of the tensors, and the strategy's moments behind them."""
    aggregator, current = (
        Aggregator(settings),
        {name: torch.zeros_like(t) for name, t in replies(2)[1].tensors["m"].items()},
    )
    first = aggregator.combine(1, "m", current, replies(40))
    return [first, aggregator.combine(2, "m", first, replies(23)), aggregator.state()]


@pytest.mark.parametrize("weighting", ["equal", "size"])
@pytest.mark.parametrize("name", OF_THE_MEAN)
def test_a_running_mean_gives_the_bits_of_flowers_own_over_all_replies(
    name: str, weighting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    InProcessGrid(client_of({}, []), [], {})  # Flower messages can only be made inside a run
    settings = Federation.model_validate({"strategy": {"name": name}, "weighting": weighting})
    folded = two_rounds(settings)
    monkeypatch.setattr(server.aggregate, "OF_THE_MEAN", ())
    monkeypatch.setattr(server.aggregate, "THE_MEAN_ITSELF", ())
    listed = two_rounds(settings)
    for ours, flowers in zip(folded, listed, strict=True):
        assert ours.keys() == flowers.keys()
        assert all(torch.equal(ours[key], flowers[key]) for key in ours)


def test_updates_come_back_from_the_shelf_to_the_last_bit_and_leave_nothing(tmp_path: Path) -> None:
    shelf, sent = Shelf(tmp_path, in_memory=0), replies(6)
    kept = [shelf.put(reply) for reply in sent]
    for before, after in zip(sent, kept, strict=True):
        assert after.tensors["m"].keys() == before.tensors["m"].keys()
        for name, tensor in before.tensors["m"].items():
            assert after.tensors["m"][name].dtype == tensor.dtype
            assert torch.equal(after.tensors["m"][name], tensor)
    assert list(tmp_path.iterdir()) == [], "a kill leaves no update behind"
    shelf.clear()
    with pytest.raises(ValueError, match="closed"):
        _ = kept[0].tensors["m"]["affine/a"]


def test_what_fits_stays_in_memory_and_what_does_not_is_read_anew(tmp_path: Path) -> None:
    first, second = replies(2)
    size = sum(tensor.nbytes for tensor in first.tensors["m"].values())
    shelf = Shelf(tmp_path, in_memory=size)
    assert shelf.put(first) is first
    laid = shelf.put(second).tensors["m"]
    assert laid["affine/a"] is not laid["affine/a"], "nobody keeps it"


def test_a_folder_that_cannot_keep_updates_ends_the_round_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(FederationError, match="make room there and continue"):
        Shelf(tmp_path / "gone", in_memory=0).put(replies(1)[0])


def test_a_run_with_updates_on_disk_has_the_bits_of_one_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def far(tensors: dict[str, Tensor]) -> None:
        tensors["affine/b"] = tensors["affine/b"] + 1e4

    def final(folder: Path) -> tuple[Mapping[str, Tensor], list[str]]:
        behaviours = {name: honest(name, 0.1 * place) for place, name in enumerate("abcdef")}
        federation, run, _ = coordinator(
            folder, {**behaviours, "far": altered("far", far)}, config_of([*"abcdef", "far"], rounds=2)
        )
        federation.train()
        found = load_checkpoint(run.checkpoints, run.run_id, FakeScorer().initial())
        assert found is not None
        return found.tensors["d24fad"], [line["status"] for line in lines(run, "site")]

    in_memory = final(tmp_path / "memory")
    monkeypatch.setattr(server.rounds, "Shelf", partial(Shelf, in_memory=0))
    on_disk = final(tmp_path / "disk")
    assert on_disk[1] == in_memory[1]
    assert on_disk[1].count("rejected") == 2, "the median of lengths still knows all of them"
    assert all(torch.equal(on_disk[0][name], tensor) for name, tensor in in_memory[0].items())


def test_memory_does_not_grow_with_the_cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.rounds, "Shelf", partial(Shelf, in_memory=2 * UPDATE))
    monkeypatch.setattr(FakeScorer, "initial", lambda self: {"d24fad": {"affine/a": torch.zeros(UPDATE // 4)}})

    def peak(cohort: int) -> int:
        names = [f"s{place:03}" for place in range(cohort)]
        federation, _, _ = coordinator(
            tmp_path / str(cohort), {name: honest(name) for name in names}, config_of(names, rounds=1)
        )
        tracemalloc.start()
        federation.train()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    few, many = peak(8), peak(48)
    assert many - few < 4 * UPDATE, "40 more updates take less than four, whatever else is kept of 40 sites"


def test_lines_of_a_round_are_synced_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def syncs(cohort: int) -> int:
        found: list[bytes] = []

        def counted(file: BinaryIO, content: bytes) -> None:
            found.append(content)
            file.write(content)

        monkeypatch.setattr(rundir, "append", counted)
        names = [f"s{place:02}" for place in range(cohort)]
        coordinator(tmp_path / str(cohort), {name: honest(name) for name in names}, config_of(names, rounds=2))[
            0
        ].train()
        return len(found)

    assert syncs(3) == syncs(20)


def federation_of(hospitals: int, **federation: int) -> str:
    sites = "".join(
        f"\n  - {{name: h{place:03}, holds: {{organs: [oct], normal: 4, abnormal: 1}}}}" for place in range(hospitals)
    )
    return f"""
name: many
data: {{kind: phantoms, organs: [oct], test_normal: 1, test_abnormal: 1, pool: 2}}
methods: {{d24fad: {{teacher: {{name: random}}, local_steps: 1, batch: 2}}}}
evaluation: {{shots: [2], draws: 1, every: 9}}
federation: {federation}
hospitals: {sites}
"""


def trained(folder: Path, text: str) -> RunDir:
    run = RunDir.create(folder, parse_config(text, "many.yaml"))
    run_inprocess(run.config(), run, PlainProgress())
    return run


def test_a_process_reads_the_config_once_for_all_its_sites(tmp_path: Path) -> None:
    before = site._config.cache_info().misses
    run = trained(tmp_path, federation_of(6, rounds=2))
    assert site._config.cache_info().misses == before + 1
    assert [line["status"] for line in lines(run, "site")] == ["ok"] * 12


def test_shares_of_a_gpu_reach_flowers_own_settings() -> None:
    config = parse_config(federation_of(7, rounds=1), "many.yaml", ["ray_gpus=0.25", "threads=2"])
    words = parse_config_args([resources(config)])
    told = simulation_config_from_json({key.replace("-", "_"): value for key, value in words.items()})
    assert (told.num_supernodes, told.client_resources_num_cpus, told.client_resources_num_gpus) == (7, 2, 0.25)


def test_the_bytes_of_an_update_are_those_that_docs_scale_counts(tmp_path: Path) -> None:
    config = parse_config(federation_of(2, rounds=1), "many.yaml")
    tensors = methods.build("d24fad", config.training["d24fad"], config.seed).trainable().values()
    expected = sum(128 + 4 * tensor.numel() for tensor in tensors)
    run = trained(tmp_path, federation_of(2, rounds=1))
    assert {(line["bytes_up"], line["bytes_down"]) for line in lines(run, "site")} == {(expected, expected)}


@pytest.mark.slow
def test_three_hundred_hospitals_share_one_frozen_model(tmp_path: Path) -> None:
    residents._built.cache_clear()
    run = trained(tmp_path, federation_of(300, rounds=2, participants=40))
    asked = [{line["site"] for line in lines(run, "site") if line["round"] == round_} for round_ in (1, 2)]
    assert [len(sites) for sites in asked] == [40, 40]
    assert asked[0] != asked[1]
    assert [line["replies"] for line in lines(run, "round")] == [40, 40]
    assert residents._built.cache_info().misses == 1
    assert run.summary()["status"] == "completed"
