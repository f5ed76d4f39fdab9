"""What a method finds wrong with a training becomes a warning of the run, once."""

from pathlib import Path

import pytest

from fed_fsad import methods
from fed_fsad.messages import Instruction, Reply
from tests.server.fakes import Behaviour, config_of, coordinator, honest, lines


def telling(site: str, cosine: float) -> Behaviour:
    """An honest update with the mean cosine of its student's features."""

    def answer(instruction: Instruction) -> Reply:
        reply = honest(site)(instruction)
        assert isinstance(reply, Reply)
        return Reply(**{**reply.__dict__, "metrics": {"d24fad": {"loss": 1.0, "student_cosine": cosine}}})

    return answer


def test_collapse_is_a_warning_and_said_once(tmp_path: Path) -> None:
    sites = {"a": telling("a", 0.991), "b": telling("b", 0.97)}
    federation, run, _ = coordinator(tmp_path, sites, config_of(["a", "b"], rounds=3))
    federation.train()
    (text,) = [line["text"] for line in lines(run, "warning")]
    assert text.startswith("a: the student sees different images alike")
    assert text.endswith("raise methods.d24fad.tsd_weight")


@pytest.mark.parametrize("figures", [{}, {"student_cosine": 0.98}, {"loss": 7.0}])
def test_healthy_figures_are_no_concern(figures: dict[str, float]) -> None:
    assert methods.concern("d24fad", figures) is None
    assert methods.concern("sdmad", figures) is None
