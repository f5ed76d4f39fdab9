"""What a host is told to use: its device, its precision, its cache; and that nothing else changes a feature."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fed_fsad import machine, residents
from fed_fsad.data.feature_store import FOLDER
from fed_fsad.data.phantoms import phantom_set
from fed_fsad.errors import ConfigError
from fed_fsad.machine import CacheSettings, MachineSettings, device_of, maker
from fed_fsad.methods import settings_type
from fed_fsad.methods.d24fad.detector import D24FAD
from fed_fsad.residents import resident, rows_of, use

SAMPLES = phantom_set("oct", 2, 0, 0, 5)


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    yield
    monkeypatch.undo()
    use(MachineSettings())


def method() -> D24FAD:
    found = resident("d24fad", settings_type("d24fad")(), 0)
    assert isinstance(found, D24FAD)
    return found


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every call of the frozen part from now on."""
    calls: list[int] = []
    features = D24FAD.features

    def told(self: D24FAD, images: torch.Tensor) -> object:
        calls.append(len(images))
        return features(self, images)

    monkeypatch.setattr(D24FAD, "features", told)
    return calls


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_is_not_there_is_one_sentence(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=rf"^machine.device is {device} and torch finds 0 GPUs here; write cpu"):
        use(MachineSettings(device=device))


def test_the_second_gpu_of_one_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="finds 1 GPUs"):
        device_of(MachineSettings(device="cuda:1"))
    assert device_of(MachineSettings(device="auto")) == torch.device("cuda:0")


def test_auto_takes_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_of(MachineSettings(device="auto")) == torch.device("cpu")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "CPU"])
def test_a_device_of_another_kind_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match="device"):
        MachineSettings(device=device)


def test_a_cache_needs_a_whole_path() -> None:
    with pytest.raises(ValueError, match="write it from / on"):
        CacheSettings(path=Path("cache"))


def test_features_from_the_disk_are_those_computed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = rows_of(method())(SAMPLES)
    calls = counted(monkeypatch)
    cache = CacheSettings(path=tmp_path)
    use(MachineSettings(cache=cache))
    first = rows_of(method())(SAMPLES)
    use(MachineSettings())
    use(MachineSettings(cache=cache))  # as a new process would, which has nothing in memory
    again = rows_of(method())(SAMPLES)
    assert calls == [1, 1]
    for name, tensor in plain.features.items():
        assert torch.equal(first.features[name], tensor)
        assert torch.equal(again.features[name], tensor)
    assert len(list((tmp_path / FOLDER).glob("??/*.safetensors"))) == 2


def test_a_process_shares_the_cache_of_its_batch_where_its_host_states_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    plain = rows_of(method())(SAMPLES)
    monkeypatch.setenv(machine.SHARED, str(shared))
    use(MachineSettings(cache=CacheSettings(path=own)))
    rows_of(method())(SAMPLES[:1])
    assert not shared.exists()
    use(MachineSettings())
    first = rows_of(method())(SAMPLES)
    use(MachineSettings(cache=CacheSettings(path=own)))
    use(MachineSettings())  # as the next cell would, which has nothing in memory
    calls = counted(monkeypatch)
    again = rows_of(method())(SAMPLES)
    assert calls == []
    assert len(list((shared / FOLDER).glob("??/*.safetensors"))) == 2
    assert all(
        torch.equal(found.features[n], tensor) for found in (first, again) for n, tensor in plain.features.items()
    )


def test_other_code_or_another_precision_makes_other_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    cache = CacheSettings(path=tmp_path)
    use(MachineSettings(cache=cache))
    exact = rows_of(method())(SAMPLES[:1])
    use(MachineSettings(cache=cache, precision="bfloat16"))
    coarse = rows_of(method())(SAMPLES[:1])
    use(MachineSettings())
    monkeypatch.setattr(machine, "_code", lambda: "another version")
    use(MachineSettings(cache=cache))
    rows_of(method())(SAMPLES[:1])
    assert calls == [1, 1, 1]
    for name, tensor in exact.features.items():
        assert coarse.features[name].dtype == torch.float32
        assert not torch.equal(coarse.features[name], tensor)
        torch.testing.assert_close(coarse.features[name], tensor, atol=0.05 * float(tensor.abs().max()), rtol=0.2)


def test_all_that_decides_a_features_bits_is_in_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = CacheSettings(path=Path("/x"), precision="float16")
    makers = {
        maker(MachineSettings()),
        maker(MachineSettings(precision="bfloat16")),
        maker(MachineSettings(cache=cache)),
    }
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    makers.add(maker(MachineSettings()))
    monkeypatch.setattr(torch, "__version__", "0.0")
    makers.add(maker(MachineSettings()))
    assert len(makers) == 5


def test_the_same_machine_named_again_keeps_what_is_in_memory() -> None:
    kept = residents._features
    use(MachineSettings())
    assert residents._features is kept
