"""What a site keeps for itself: full texts in its own log, one line per answer, and codes only for the server."""

import logging
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, RecordDict
from torch import Tensor

from clients.journal import ANSWERS, LOG, answers
from fed_fsad.data.episodes import Episode
from fed_fsad.messages import Reply
from fed_fsad.methods.d24fad.detector import D24FAD
from tests.clients.test_hostile_server import PRIVATE, real_site
from tests.clients.test_train import ask, instruction, opened


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The folder of a site without privacy."""
    real_site(tmp_path / "site", "privacy: off\n")
    return tmp_path / "site"


def answer(site: Path, **changes: Any) -> Reply:
    _, config = opened(Path(tempfile.mkdtemp(dir=site.parent)) / "run")
    context = Context(1, 2, {"site-config": str(site / "site.yaml")}, RecordDict(), {})
    return ask(context, instruction(config, **changes))


def test_the_reason_stays_here_with_time_and_round_and_the_server_gets_a_code(site: Path) -> None:
    (site / "policy.yaml").write_text("privacy: perhaps\n")
    reply = answer(site, round_=2, run="abcdef0123456789")
    assert reply.reason == "its settings cannot be used; the site's own log says why"
    log = (site / "state" / LOG).read_text().splitlines()
    assert "ERROR run abcdef01 round 2: " in log[1]
    assert "policy.yaml: privacy: " in log[1]
    assert log[1][:20].count("-") == 2, "it starts with the day"
    (line,) = answers(site / "state")
    assert (line["round"], line["status"], line["sent"]) == (2, "error", "nothing")
    assert "'perhaps'" in line["trouble"]


def test_a_round_that_went_well_is_remembered_without_trouble(site: Path) -> None:
    assert answer(site).status == "ok"
    (line,) = answers(site / "state")
    assert (line["status"], line["sent"], line["trouble"]) == ("ok", "update", None)


def damage_ledger(site: Path, patch: pytest.MonkeyPatch) -> None:
    (site / "policy.yaml").write_text(PRIVATE)
    (site / "state").mkdir()
    (site / "state" / "ledger.jsonl").write_text("no ledger\n")


def diverge(site: Path, patch: pytest.MonkeyPatch) -> None:
    def losses(self: D24FAD, episode: Episode) -> Tensor:
        return episode.query * math.nan + 0 * next(iter(self.trainable().values())).sum()

    patch.setattr(D24FAD, "losses", losses)


def lose_images(site: Path, patch: pytest.MonkeyPatch) -> None:
    (site / "images").rename(site / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "code", "story"),
    [
        (damage_ledger, "its privacy ledger is damaged", "line 1 of the ledger"),
        (diverge, "its training diverged", "the training loss is nan"),
        (lose_images, "its images cannot be used", "is no folder"),
    ],
)
def test_troubles_have_codes_of_their_own(
    site: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path, pytest.MonkeyPatch], None],
    code: str,
    story: str,
) -> None:
    damage(site, monkeypatch)
    reply = answer(site, insecure_noise_seed=None)
    assert (reply.status, reply.reason.startswith(code)) == ("error", True), reply.reason
    assert str(site) not in repr(reply)
    assert story in (site / "state" / LOG).read_text()


def test_a_state_that_cannot_be_written_costs_no_answer_and_is_said(
    site: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (site / "state" / ANSWERS).mkdir(parents=True)
    assert answer(site).status == "ok"
    assert f"{site / 'state' / ANSWERS} cannot be written (Is a directory); make room" in caplog.text


def test_a_server_writes_no_line_of_its_own_into_the_log(site: Path) -> None:
    answer(site, run="x\n2026 ERROR forged %s %(levelname)s\x1b[31m")
    assert [line.split(" ", 2)[2] for line in (site / "state" / LOG).read_text().splitlines()] == [
        "run x2026ERR round 1: asked",
        "run x2026ERR round 1: answered: ok, update sent",
    ]


def test_the_log_does_not_grow_without_end(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clients.journal.LOG_BYTES", 60)
    for _ in range(3):
        answer(site)
    assert {path.name for path in (site / "state").glob("site.log*")} == {
        f"{LOG}{end}" for end in ("", ".1", ".2", ".3")
    }
    assert logging.getLogger("fed_fsad").handlers == [], "nothing listens after the answer"


def test_a_line_that_a_crash_cut_short_hides_no_other(tmp_path: Path) -> None:
    assert answers(tmp_path) == []
    (tmp_path / ANSWERS).write_text('{"round": 1}\n{"round": 2, "sta')
    assert answers(tmp_path) == [{"round": 1}]
