"""`fed-fsad site …` as an engineer of a hospital types it: words on the screen, JSON for programs, exit codes."""

import json
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from clients.check import Line
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.lines import Request
from tests.cli.test_cli import _wide_plain_terminal, called
from tests.clients.test_service import site

__all__ = ["_wide_plain_terminal", "site"]

Patch = pytest.MonkeyPatch
Capture = pytest.CaptureFixture[str]
SITE = "name: north\ndata: {kind: phantoms, organs: [oct], normal: 9, abnormal: 2}\npolicy: policy.yaml\nstate: state\n"
FEDERATION = """
name: tiny
data: {kind: phantoms}
hospitals: [{name: north}]
methods: {d24fad: {teacher: {name: random}, image_size: 64, local_steps: 2, batch: 4}}
"""


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    (tmp_path / "policy.yaml").write_text("privacy: off\n")
    (tmp_path / "federation.yaml").write_text(FEDERATION)
    path = tmp_path / "site.yaml"
    path.write_text(SITE + "server: {address: 'localhost:1', ca: ca.crt, key: node.key}\n")
    return path


def test_every_command_explains_itself(monkeypatch: Patch, capsys: Capture) -> None:
    code, out, _ = called(monkeypatch, capsys, "site", "--help")
    assert code == 0
    for command in ("check", "preview", "start", "stop", "status", "keygen"):
        assert f" {command} " in out
        assert "SITE_YAML" in called(monkeypatch, capsys, "site", command, "--help")[1]


def test_keygen_makes_a_pair_that_flower_takes_and_shows_what_to_send(
    monkeypatch: Patch, capsys: Capture, kit: Path
) -> None:
    code, out, _ = called(monkeypatch, capsys, "site", "keygen", str(kit))
    key = load_ssh_private_key((kit.parent / "node.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp384r1"
    assert load_ssh_public_key((kit.parent / "node.pub").read_bytes()) == key.public_key()
    assert stat.S_IMODE((kit.parent / "node.key").stat().st_mode) == 0o600
    assert (code, f"{kit.parent / 'node.pub'} (send it" in out, "SHA256:" in out) == (0, True, True)
    again, _, err = called(monkeypatch, capsys, "site", "keygen", str(kit))
    assert (again, "not overwritten" in err) == (2, True)


def found(monkeypatch: Patch, **checks: Line) -> None:
    monkeypatch.setattr("clients.check.inspect", lambda path: iter(checks.items()))


def test_check_shows_cause_and_remedy_and_fails_when_something_failed(
    monkeypatch: Patch, capsys: Capture, kit: Path
) -> None:
    warned = {"disk": Line("warn", "1 GB [free]", "make room"), "port": Line("ok", "open")}
    found(monkeypatch, **warned)
    code, out, _ = called(monkeypatch, capsys, "site", "check", str(kit))
    assert (code, "0 failed, 1 warnings" in out) == (0, True)
    assert [" ".join(line.split()) for line in out.splitlines()[:3]] == [
        "warn disk 1 GB [free]",
        "→ make room",
        "ok port open",
    ]
    found(monkeypatch, **warned, clock=Line("fail", "late", "set it"), server=Line("skipped", "needs clock"))
    code, out, _ = called(monkeypatch, capsys, "site", "check", str(kit))
    assert (code, "FAIL clock late" in " ".join(out.split()), "1 failed, 1 warnings" in out) == (1, True, True)


def test_check_speaks_json_to_programs(monkeypatch: Patch, capsys: Capture, kit: Path) -> None:
    found(monkeypatch, disk=Line("ok", "9 GB"), clock=Line("fail", "late", "set it"))
    code, out, _ = called(monkeypatch, capsys, "site", "check", str(kit), "--json")
    assert code == 1
    assert json.loads(out) == {
        "ok": False,
        "checks": [
            {"check": "disk", "status": "ok", "text": "9 GB", "remedy": ""},
            {"check": "clock", "status": "fail", "text": "late", "remedy": "set it"},
        ],
    }


def test_a_real_check_ends_with_an_exit_code(monkeypatch: Patch, capsys: Capture, kit: Path) -> None:
    code, out, _ = called(monkeypatch, capsys, "site", "check", str(kit))
    assert code == 1, "no key, no certificate, no server"
    assert "phantoms: a rehearsal" in out
    assert "there is no key" in out


def test_preview_lists_tensors_figures_and_what_stays(monkeypatch: Patch, capsys: Capture, kit: Path) -> None:
    federation = str(kit.parent / "federation.yaml")
    code, out, _ = called(monkeypatch, capsys, "site", "preview", str(kit), "--config", federation)
    assert code == 0
    words = " ".join(out.split())
    for expected in (
        "would leave: ",
        "d24fad affine/",
        "float32",
        "num-examples = 9",
        "stays at this site images, masks",
    ):
        assert expected in words, expected
    code, out, _ = called(monkeypatch, capsys, "site", "preview", str(kit), "--config", federation, "--json")
    content = json.loads(out)
    assert (code, content["texts"]["status"]) == (0, "ok")
    assert content["bytes"] == sum(tensor["bytes"] for tensor in content["tensors"])
    assert not (kit.parent / "state").exists()


def test_start_status_and_stop_of_a_site(monkeypatch: Patch, capsys: Capture, site: object) -> None:
    policy: Path = site.policy  # type: ignore[attr-defined]
    path = str(policy.parent / "site.yaml")
    (policy.parent / "says").write_text("SuperNode ID: 42")
    policy.write_text("privacy: example\nepsilon: 8\n")
    code, out, _ = called(monkeypatch, capsys, "site", "status", path)
    assert (code, "not running" in out, "ε = 0 of 8 spent, 8 left by the policy" in out) == (3, True, True)
    code, out, _ = called(monkeypatch, capsys, "site", "start", path)
    assert (code, "is connected to the server" in out) == (0, True), out
    code, _, err = called(monkeypatch, capsys, "site", "start", path)
    assert (code, "runs already" in err) == (1, True)
    line = {"time": "T", "round": 3, "status": "refused", "reason": "its policy refuses", "trouble": "too few images"}
    (policy.parent / "state" / "answers.jsonl").write_text(json.dumps({**line, "run": "r", "sent": "nothing"}) + "\n")
    code, out, _ = called(monkeypatch, capsys, "site", "status", path)
    assert (code, "running since 20" in out) == (0, True)
    for said in ("connected", "round 3 at T: refused: its policy refuses", "trouble   round 3 at T: too few images"):
        assert said in out
    shown = json.loads(called(monkeypatch, capsys, "site", "status", path, "--json")[1])
    assert (shown["connected"], shown["rounds"], shown["last"]["round"], shown["budget"]) == (True, 0, 3, 8.0)
    with Ledger.open(policy.parent / "state" / "ledger.jsonl", unit="patient", delta=1e-6, epsilon=4) as ledger:
        ledger.charge(Request(run="r", round=1, method="m", key="k"), "x", releases=1, sigma=2.0, secure=True)
    policy.write_text("privacy: off\n")
    out = called(monkeypatch, capsys, "site", "status", path)[1]
    assert "spent under what servers asked for; no budget of its own" in out
    assert "is stopped" in called(monkeypatch, capsys, "site", "stop", path)[1]
    assert "was not running" in called(monkeypatch, capsys, "site", "stop", path)[1]


def test_a_site_that_gets_no_answer_goes_on_and_says_where_to_look(
    monkeypatch: Patch, capsys: Capture, site: object
) -> None:
    path = str(site.policy.parent / "site.yaml")  # type: ignore[attr-defined]
    code, out, _ = called(monkeypatch, capsys, "site", "start", path, "--wait", "0.5")
    assert (code, "no answer from the server yet, it goes on trying" in out) == (0, True)
    assert f"fed-fsad site check {path}" in out
