"""One process, many sites: none of them reaches the server's tensors, its view of a reply, or what another is sent."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fed_fsad.messages import Instruction, Reply
from server.checkpoint import load_checkpoint
from tests.server.fakes import Behaviour, FakeScorer, config_of, coordinator, honest, lines


class Meddler:
    """An honest site that spoils everything it has ever touched, as soon as it has answered."""

    def __init__(self, site: str, step: float) -> None:
        self._honest = honest(site, step)
        self._touched: list[Tensor] = []

    def __call__(self, instruction: Instruction) -> Reply:
        reply = self._honest(instruction)
        assert isinstance(reply, Reply)
        self.spoil()
        for own in (*instruction.tensors.values(), *reply.tensors.values()):
            self._touched += own.values()
        return reply

    def spoil(self) -> None:
        for tensor in self._touched:
            tensor.fill_(float("nan"))


def trained(folder: Path, behaviours: Mapping[str, Behaviour]) -> Mapping[str, Tensor]:
    federation, run, _ = coordinator(folder, behaviours, config_of([*behaviours], rounds=3))
    federation.train()
    assert {line["status"] for line in lines(run, "site")} == {"ok"}
    found = load_checkpoint(run.checkpoints, run.run_id, FakeScorer().initial())
    assert found is not None
    return found.tensors["d24fad"]


def test_a_site_that_spoils_what_it_was_sent_and_what_it_has_sent_changes_nothing(tmp_path: Path) -> None:
    names = {name: 0.5 * place for place, name in enumerate("abcd")}
    meddlers = {name: Meddler(name, step) for name, step in names.items()}

    def after_the_others(instruction: Instruction) -> Reply:
        for meddler in meddlers.values():
            meddler.spoil()
        reply = honest("z", 1.0)(instruction)
        assert isinstance(reply, Reply)
        return reply

    good = trained(tmp_path / "good", {**{name: honest(name, step) for name, step in names.items()}, "z": honest("z")})
    spoilt = trained(tmp_path / "spoilt", {**meddlers, "z": after_the_others})
    assert all(torch.equal(spoilt[name], tensor) for name, tensor in good.items())
