"""Bad input to a site's privacy: one clear sentence in its own log, a code for the server, and nothing is trained."""

import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Context, RecordDict

from clients.app import answer_round
from clients.journal import LOG
from fed_fsad.config import parse_config
from fed_fsad.messages import Reply
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.terms import ExampleTerms, HospitalTerms
from fed_fsad.rundir import Event
from tests.clients.test_hostile_server import PRIVATE, real_site
from tests.clients.test_train import TEXT, instruction

LIGHT = "largest_rho: 20, methods: {d24fad: [affine]}"


def answer(
    site: Path, round_: int = 1, seen: list[Event] | None = None, observer: Callable[[Event], None] | None = None,
    **changes: Any,
) -> Reply:  # fmt: skip
    """What the site's app answers; `seen` gets every step of work that it did on its images."""
    events = seen if seen is not None else []
    sent = instruction(parse_config(TEXT, "tiny.yaml"), round_, **{"insecure_noise_seed": None, **changes})
    context = Context(1, 2, {"site-config": str(site / "site.yaml")}, RecordDict(), {})
    return Reply.unpack(answer_round(context, sent.pack(), observer or events.append))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The folder of a site under privacy, with nine images of unknown patients."""
    real_site(tmp_path / "site", PRIVATE)
    return tmp_path / "site"


def ledger_of(site: Path) -> Path:
    return site / "state" / "ledger.jsonl"


def charges(site: Path) -> list[str]:
    path = ledger_of(site)
    return [line for line in path.read_text().splitlines() if '"charge"' in line] if path.exists() else []


def policy(text: str) -> Callable[[Path], None]:
    def write(site: Path) -> None:
        (site / "policy.yaml").write_text(text)

    return write


def of_another_unit(site: Path) -> None:
    Ledger.open(ledger_of(site), unit="patient", delta=1e-5, epsilon=8).close()


def damaged(site: Path) -> None:
    answer(site)
    path = ledger_of(site)
    path.write_bytes(path.read_bytes().replace(b'"sigma":', b'"sigma":1', 1))


def from_tomorrow(site: Path) -> None:
    answer(site)
    path = ledger_of(site)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[-1]["time"] = "2999-01-01T00:00:00Z"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


BAD: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no epsilon": (policy("privacy: example\n"), "settings cannot be used", "needs a budget; state epsilon"),
    "epsilon 0": (policy("{privacy: example, epsilon: 0}"), "settings cannot be used", "epsilon: input should be gre"),
    "epsilon below 0": (policy("{privacy: example, epsilon: -1}"), "settings cannot be used", "but it is -1; change"),
    "delta": (
        policy(f"{{privacy: example, epsilon: 8, delta: 0.2, {LIGHT}}}"), "delta too large", "not below 1 / 9 images"
    ),
    "unknown key": (policy("{privacy: example, epsilom: 2}"), "settings cannot be used", "did you mean 'epsilon'?"),
    "another unit": (of_another_unit, "ledger of another guarantee", "accounts for unit patient and delta 1e-05, not "),
    "another delta": (
        policy(f"{{privacy: example, epsilon: 8, delta: 1e-6, {LIGHT}}}"), "ledger of another guarantee", "set the pol"
    ),
    "damaged": (damaged, "its privacy ledger is damaged", "is damaged: restore it from a backup"),
    "clock set back": (from_tomorrow, "clock set back", "was made at 2999-01-01 00:00 UTC and the clock says"),
    "patients unknown": (
        policy(f"{{privacy: example, unit: patient, epsilon: 8, {LIGHT}}}"), "patients unknown", "have no patient id"
    ),
    "too few": (
        policy(f"{{privacy: example, epsilon: 8, smallest_records: 4, {LIGHT}}}"), "too few records",
        "has 3 privacy records and needs 4: add images",
    ),
    "hospital level demanded": (
        policy(f"{{privacy: example, epsilon: 8, hospital_epsilon: 4, {LIGHT}}}"), "no hospital level privacy",
        "epsilon 4 or less and the server promises none: agree with",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_sentence_and_nothing_is_trained(site: Path, kind: str) -> None:
    spoil, code, story = BAD[kind]
    if kind == "another delta":
        answer(site)
    spoil(site)
    before, seen = charges(site), list[Event]()
    reply = answer(site, 2, seen)
    assert (reply.status in ("refused", "error"), reply.tensors) == (True, {})
    assert code in reply.reason
    assert str(site) not in repr(reply), "the story stays here"
    assert [event for event in seen if event["what"] != "features"] == [], "not one step was trained"
    assert charges(site) == before
    assert story in (site / "state" / LOG).read_text().splitlines()[-2]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter: pytest's own are for its user alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _read_only(site: Path) -> None:
    torch.set_num_threads(1)
    if os.getuid() == 0:
        os.setuid(65534)  # permissions do not bind root
    seen = list[Event]()
    reply = answer(site, seen=seen)
    os._exit(7 if (reply.reason, seen) == ("its policy refuses (ledger unwritable)", []) else 1)


@pytest.mark.parametrize("made", [True, False])
def test_a_ledger_folder_that_is_read_only_is_refused(open_folder: Path, made: bool) -> None:
    site = open_folder / "site"
    real_site(site, PRIVATE)
    if made:
        (site / "state").mkdir(mode=0o555)
    site.chmod(0o555)
    process = multiprocessing.get_context("fork").Process(target=_read_only, args=(site,))
    process.start()
    process.join(120)
    site.chmod(0o755)
    assert process.exitcode == 7


def _first(site: Path) -> None:
    """Trains, and waits in the middle of it until it is told to go on."""
    torch.set_num_threads(1)

    def wait(event: Event) -> None:
        (site / "training").touch()
        deadline = time.monotonic() + 60
        while not (site / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.01)

    reply = answer(site, run="first", observer=wait)
    os._exit(7 if reply.status == "ok" else 1)


def test_of_two_runs_on_one_site_at_once_one_is_refused_and_pays_nothing(site: Path) -> None:
    process = multiprocessing.get_context("fork").Process(target=_first, args=(site,))
    process.start()
    deadline = time.monotonic() + 60
    while not (site / "training").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    second = answer(site, run="second")
    (site / "go").touch()
    process.join(60)
    assert (second.status, second.reason) == ("refused", "its policy refuses (ledger busy)")
    assert process.exitcode == 7
    assert [json.loads(line)["request"]["run"] for line in charges(site)] == ["first"]
    assert answer(site, run="third").status == "ok", "afterwards the ledger is free"


def test_where_the_policy_is_silent_the_server_s_terms_are_kept(site: Path) -> None:
    (site / "policy.yaml").write_text("{privacy: off, largest_rho: 1000, release_metrics: true}")
    plain = answer(site)
    assert (plain.epsilon, set(plain.examples), charges(site)) == (None, {"d24fad"}, [])
    reply = answer(site, example=ExampleTerms(epsilon=3, delta=1e-6, clip_norm=0.5))
    assert (reply.status, reply.unit, reply.delta) == ("ok", "image", 1e-6)
    assert reply.epsilon is not None
    assert 0 < reply.epsilon < 3
    assert (reply.metrics["d24fad"], reply.examples, reply.evaluation) == ({}, {}, {})
    assert len(charges(site)) == 1
    assert "spent of 3 and" in str(reply.claim)


def test_where_both_ask_the_stricter_holds(site: Path) -> None:
    (site / "policy.yaml").write_text(f"{{privacy: example, epsilon: 2, {LIGHT.replace('20', '200')}}}")
    assert "spent of 2 and" in str(answer(site, example=ExampleTerms(epsilon=8)).claim)
    assert "spent of 1.9 and" in str(answer(site, 2, example=ExampleTerms(epsilon=1.9)).claim)
    patients = answer(site, 3, example=ExampleTerms(epsilon=8, unit="patient"))
    assert patients.reason == "its policy refuses (patients unknown)"


def test_terms_that_make_no_sense_are_no_terms(site: Path) -> None:
    terms = ExampleTerms.model_construct(epsilon=-1.0, delta=1e-5, unit="image", clip_norm=1.0)
    assert answer(site, example=terms).reason.startswith("it cannot read the server's message")
    assert charges(site) == []


def test_a_promise_of_hospital_level_privacy_travels(site: Path) -> None:
    (site / "policy.yaml").write_text(f"{{privacy: example, epsilon: 8, hospital_epsilon: 4, {LIGHT}}}")
    assert answer(site, hospital=HospitalTerms(epsilon=4)).status == "ok"
    assert answer(site, 2, hospital=HospitalTerms(epsilon=5)).status == "refused"
