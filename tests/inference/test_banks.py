"""Models of a run, and banks on disk: right by comparison with what was encoded afresh, refused when foreign."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from fed_fsad import residents
from fed_fsad.data.samples import Sample
from fed_fsad.data.settings import Reading
from fed_fsad.data.signs import load_signs
from fed_fsad.errors import CheckpointError, ConfigError, DataError
from fed_fsad.inference.banks import NamedBank, encode, load_bank, save_bank
from fed_fsad.inference.images import Kind, find_supports
from fed_fsad.inference.trained import Trained, load_trained
from tests.inference.conftest import write_run
from tests.inference.test_images import quiet


@pytest.fixture
def model(run_folder: Path) -> Trained:
    return load_trained(run_folder, "d24fad", None)


@pytest.fixture
def normals(drawn: Path) -> list[Sample]:
    found = find_supports(drawn / "manifest.csv", Kind("oct", ("normal",), Reading()), quiet)
    return [sample for sample in found if sample.is_normal]


def assert_same(one: NamedBank, other: NamedBank) -> None:
    assert (one.names, one.model, one.bank.task) == (other.names, other.model, other.bank.task)
    assert (one.bank.ids, one.bank.categories) == (other.bank.ids, other.bank.categories)
    assert list(one.bank.tensors) == list(other.bank.tensors)
    for name, tensor in one.bank.tensors.items():
        torch.testing.assert_close(tensor, other.bank.tensors[name], rtol=1e-5, atol=1e-6)


# ---- the model


def test_a_model_holds_the_tensors_of_the_round_that_was_asked_for(run_folder: Path) -> None:
    for asked, file in ((None, "round-0002"), (1, "round-0001")):
        model = load_trained(run_folder, "sdmad", asked)
        saved = load_file(run_folder / "checkpoints" / f"{file}.safetensors")
        assert model.round == int(file[-1])
        assert model.method.trainable()
        for name, tensor in model.method.trainable().items():
            assert torch.equal(tensor, saved[f"tensors|sdmad|{name}"]), name


@pytest.mark.parametrize(
    ("name", "round_", "said"),
    [
        (None, None, "has trained d24fad and sdmad; choose one with --method"),
        ("d24fat", None, r"has no model of 'd24fat'; did you mean 'd24fad'\?"),
        ("d24fad", 7, "holds no round 7; choose one of 1, 2"),
    ],
)
def test_what_a_run_does_not_have(run_folder: Path, name: str | None, round_: int | None, said: str) -> None:
    with pytest.raises((ConfigError, CheckpointError), match=said):
        load_trained(run_folder, name, round_)


def test_a_folder_without_a_run_and_a_run_without_a_round(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no run; give --run a run directory"):
        load_trained(tmp_path, None, None)
    run = write_run(tmp_path / "run")
    (run / "checkpoints" / "latest.json").unlink()
    with pytest.raises(CheckpointError, match="holds no finished round; wait for the run's first one"):
        load_trained(run, "d24fad", None)


def test_an_earlier_round_that_is_damaged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    path = run / "checkpoints" / "round-0001.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=r"round-0001\.safetensors: the checkpoint is damaged"):
        load_trained(run, "d24fad", 1)


def test_a_sign_file_that_has_changed_since(tmp_path: Path) -> None:
    signs = {"oct": load_signs("phantoms")["oct"].model_dump(mode="json")}
    path = tmp_path / "signs.yaml"
    path.write_text(yaml.safe_dump(signs), encoding="utf-8")
    run = write_run(tmp_path / "run", str(path))
    load_trained(run, "sdmad", None)
    signs["oct"]["normal"] = ["a round outline"]
    path.write_text(yaml.safe_dump(signs), encoding="utf-8")
    residents._built.cache_clear()  # another process would read the file anew
    with pytest.raises(CheckpointError, match="trained with other sign lists"):
        load_trained(run, "sdmad", None)


def test_the_task_is_asked_for_only_where_signs_are_read(run_folder: Path, model: Trained) -> None:
    assert (model.task("oct"), model.task(None)) == ("oct", "images")
    with pytest.raises(ConfigError, match=r"sdmad reads signs of a task; name it with --task, one of .*oct"):
        load_trained(run_folder, "sdmad", None).task(None)


# ---- the bank


@pytest.mark.parametrize("method", ["d24fad", "sdmad"])
def test_a_bank_comes_back_as_it_was(run_folder: Path, normals: list[Sample], tmp_path: Path, method: str) -> None:
    model = load_trained(run_folder, method, None)
    bank = encode(model, normals, "oct")
    save_bank(tmp_path / "bank.safetensors", bank)
    assert_same(load_bank(tmp_path / "bank.safetensors", model), bank)


def test_adding_and_removing_gives_what_a_fresh_bank_holds(model: Trained, normals: list[Sample]) -> None:
    whole = encode(model, normals, "oct")
    first = encode(model, normals[:2], "oct")
    assert_same(first.add(encode(model, normals[1:], "oct")), whole)
    assert_same(whole.remove([x.source.name for x in normals[2:]]), first)
    held = whole.add(whole).remove([normals[0].source.name])
    scores, wanted = (model.method.support_scores(bank) for bank in (held.bank, encode(model, normals[1:], "oct").bank))
    assert scores is not None
    assert wanted is not None
    torch.testing.assert_close(scores, wanted, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_added_or_removed(model: Trained, normals: list[Sample]) -> None:
    bank = encode(model, normals[:2], "oct")
    name = normals[0].source.name
    with pytest.raises(DataError, match=f"holds no image '{name}x'; did you mean '{name}'"):
        bank.remove([name + "x"])
    with pytest.raises(DataError, match="would leave the bank empty; keep an image"):
        bank.remove(bank.names)
    elsewhere = [replace(sample, task="fundus") for sample in normals[2:]]
    with pytest.raises(DataError, match="of task 'oct' cannot take supports of task 'fundus'; state the bank's own"):
        bank.add(encode(model, elsewhere, "fundus"))
    namesake = replace(encode(model, normals[2:3], "oct"), names=(name,))
    with pytest.raises(DataError, match=f"holds another image called '{name}'; rename the new one"):
        bank.add(namesake)


def test_a_bank_of_another_model_is_refused_by_the_difference(
    run_folder: Path, model: Trained, normals: list[Sample], tmp_path: Path
) -> None:
    path = tmp_path / "bank.safetensors"
    save_bank(path, encode(load_trained(run_folder, "d24fad", 1), normals, "oct"))
    load_trained(run_folder, "d24fad", 2)
    with pytest.raises(CheckpointError, match=r"was made by another model: trained was '\w{64}' and is '\w{64}'; make"):
        load_bank(path, model)
    with pytest.raises(CheckpointError, match="was made by another model: method was 'd24fad' and is 'sdmad'"):
        load_bank(path, load_trained(run_folder, "sdmad", None))
    named = load_bank(path)
    settings = {**named.model["settings"], "image_size": 96}
    save_bank(path, NamedBank(named.bank, named.names, {**named.model, "settings": settings}))
    with pytest.raises(CheckpointError, match=r"another model: settings\.image_size was 96 and is 64"):
        load_bank(path, model)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def strip(path: Path) -> None:
    save_file(load_file(path), path)


def forge(path: Path) -> None:
    save_file(load_file(path), path, {"bank": json.dumps({"format": "other"})})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (flip, "is damaged; make it anew with fed-fsad bank make"),
        (lambda path: path.write_bytes(path.read_bytes()[:50]), r"cannot be read as a support bank \(\w+\); make it"),
        (lambda path: path.write_bytes(b""), r"cannot be read as a support bank \(\w+\); make it"),
        (strip, r"cannot be read as a support bank \(TypeError\)"),
        (forge, r"cannot be read as a support bank \(KeyError\)"),
        (lambda path: path.unlink(), "does not exist; make it with fed-fsad bank make"),
    ],
)
def test_a_damaged_file_is_one_sentence(
    model: Trained, normals: list[Sample], tmp_path: Path, spoil: Callable[[Path], object], said: str
) -> None:
    path = tmp_path / "bank.safetensors"
    save_bank(path, encode(model, normals[:1], "oct"))
    spoil(path)
    with pytest.raises(CheckpointError, match=said):
        load_bank(path, model)
