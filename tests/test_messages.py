"""The wire contract: what goes in comes out, as copies, and a message that breaks it is refused by name."""

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from fed_fsad import methods
from fed_fsad.evaluation.settings import EvaluationSettings
from fed_fsad.messages import Instruction, MalformedMessage, Reply, wire_bytes

TENSORS: dict[str, dict[str, Tensor]] = {
    "d24fad": {"affine/a": torch.randn(3), "affine/b": torch.randn(()), "kernels/c": torch.randn(2, 3)},
    "sdmad": {"context/tokens": torch.randn(4, 5)},
}


def instruction() -> Instruction:
    settings = methods.settings_type("d24fad")(local_steps=3)
    asked = EvaluationSettings(shots=(2, 4), draws=5)
    return Instruction(
        "run", 2, 8, 2**62 - 1, 1, 4, {"d24fad": settings}, TENSORS, insecure_noise_seed=7, attempt=3, evaluation=asked
    )


def reply() -> Reply:
    return Reply(
        "north",
        "1.2",
        tensors=TENSORS,
        metrics={"d24fad": {"loss": 0.5}, "sdmad": {}},
        examples={"d24fad": 12},
        seconds=1.5,
        epsilon=2.0,
        delta=1e-5,
        unit="image",
        claim="a claim",
        run="run",
        round=2,
        attempt=3,
        role="predict-only",
        evaluation={"d24fad": {"headline": 0.75, "shots": 4.0}},
    )


def test_an_instruction_survives_the_wire() -> None:
    sent, got = instruction(), Instruction.unpack(instruction().pack())
    assert (got.run, got.round, got.rounds, got.seed, got.threads, got.cohort) == ("run", 2, 8, 2**62 - 1, 1, 4)
    assert got.settings == sent.settings
    assert got.insecure_noise_seed == 7
    assert (got.attempt, got.evaluation) == (3, sent.evaluation)
    assert {(m, n): t.tolist() for m, own in got.tensors.items() for n, t in own.items()} == {
        (m, n): t.tolist() for m, own in TENSORS.items() for n, t in own.items()
    }


def test_a_reply_survives_the_wire() -> None:
    got = Reply.unpack(reply().pack())
    assert got.tensors["d24fad"]["affine/b"].shape == ()
    assert torch.equal(got.tensors["sdmad"]["context/tokens"], TENSORS["sdmad"]["context/tokens"])
    assert (got.site, got.version, got.status, got.metrics["d24fad"], got.examples) == (
        "north", "1.2", "ok", {"loss": 0.5}, {"d24fad": 12},
    )  # fmt: skip
    assert (got.seconds, got.epsilon, got.delta, got.unit, got.claim) == (1.5, 2.0, 1e-5, "image", "a claim")
    assert (got.run, got.round, got.attempt, got.role) == ("run", 2, 3, "predict-only")
    assert (got.evaluation, set(got.metrics)) == ({"d24fad": {"headline": 0.75, "shots": 4.0}}, {"d24fad", "sdmad"})


def test_each_part_travels_in_a_record_of_its_own() -> None:
    assert set(reply().pack().array_records) == {"d24fad/affine", "d24fad/kernels", "sdmad/context"}


def test_packed_tensors_are_copies() -> None:
    own = {"d24fad": {"affine/a": torch.zeros(3)}}
    packed = Reply("north", "1", tensors=own).pack()
    own["d24fad"]["affine/a"].add_(1)
    first = Reply.unpack(packed).tensors["d24fad"]["affine/a"]
    first.add_(5)
    assert Reply.unpack(packed).tensors["d24fad"]["affine/a"].tolist() == [0, 0, 0]


def test_bytes_count_every_tensor_of_every_record() -> None:
    raw = sum(t.numel() * 4 for own in TENSORS.values() for t in own.values())
    counted = wire_bytes([reply().pack(), reply().pack()])
    assert 2 * raw < counted < 2 * raw + 2 * 4 * 300


def test_messages_that_break_the_contract_are_refused() -> None:
    with pytest.raises(MalformedMessage, match="no 'reply' record"):
        Reply.unpack(RecordDict())
    with pytest.raises(MalformedMessage, match="unknown status"):
        Reply.unpack(RecordDict({"reply": ConfigRecord({"site": "x", "status": "fine"})}))
    arrays = ArrayRecord({"kernels/a": Array(torch.zeros(2).numpy())})
    with pytest.raises(MalformedMessage, match="another part"):
        Reply.unpack(RecordDict({"reply": ConfigRecord({"site": "x", "status": "ok"}), "d24fad/affine": arrays}))
    broken = ArrayRecord({"affine/a": Array("float32", (2,), "numpy.ndarray", b"not an array")})
    with pytest.raises(MalformedMessage, match="cannot be read"):
        Reply.unpack(RecordDict({"reply": ConfigRecord({"site": "x", "status": "ok"}), "d24fad/affine": broken}))
    with pytest.raises(MalformedMessage, match="incomplete"):
        Instruction.unpack(RecordDict({"instruction": ConfigRecord({"run": "r"})}))
