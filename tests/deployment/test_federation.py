"""Three sites over TLS on loopback, as docs/deployment.md has it, and what happens to them: one test per fault.

The tests of this module are one story and run in their order, on one set of real processes, certificates and nginx.
"""

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fed_fsad import __version__
from fed_fsad.rundir import RunDir
from tests.deployment.disks import fill
from tests.deployment.harness import PATIENCE_S, Deployment, Training, wait_until

pytestmark = pytest.mark.slow
TRAINERS = ("north", "south", "west")
CUT_S = 30.0
STATUS_SOUTH = "fed-fsad site status kits/south/site.yaml || true"
ROOT = Path(__file__).resolve().parents[2]


def tensors(run: Path, round_: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"round-{round_:04}.safetensors")


def assert_equal_bits(run: Path, reference: RunDir, round_: int) -> None:
    ours, theirs = tensors(run, round_), tensors(reference.path, round_)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_page_makes_kits_and_starts_a_server_and_three_sites(deployment: Deployment) -> None:
    deployment.follow("Make the kits")
    deployment.follow("A site makes its own key")
    deployment.follow("Start the server")
    said = deployment.follow("Check and start the sites")
    assert said.count("is connected to the server") == 3
    assert all(deployment.site(name).daemon.pid() for name in TRAINERS)


def test_three_sites_over_tls_end_in_the_bits_of_the_in_process_engine(
    deployment: Deployment, reference: RunDir
) -> None:
    said = deployment.follow("Train")
    run = RunDir(deployment.folder / "run")
    assert (run.summary()["status"], run.summary()["rounds"]) == ("completed", 3)
    assert {name: site["rounds"] for name, site in run.summary()["sites"].items()} == dict.fromkeys(TRAINERS, 3)
    assert_equal_bits(run.path, reference, 3)
    assert not all(map(torch.equal, tensors(run.path, 2).values(), tensors(run.path, 3).values())), "rounds change bits"
    assert said.count("3 answered with an update") == 3
    assert "<html" in (run.path / "report.html").read_text(encoding="utf-8")[:500]


# ---- the door


@pytest.mark.parametrize("path", ["/v1/control/list-runs", "/v1/runtime/get-nodes", "/docs", "/openapi.json", "/"])
@pytest.mark.parametrize("trick", ["{path}", "/v1/fleet/..{path}", "/v1/fleet/%2e%2e{path}", "/v1/fleet/..%2f{path}"])
def test_control_runtime_and_docs_are_not_reachable_from_outside(deployment: Deployment, path: str, trick: str) -> None:
    url = f"https://localhost:{deployment.port}"
    for method in ("GET", "POST"):
        assert answered(deployment, method, f"{url}{trick.format(path=path)}") in (403, 404)


def test_the_same_paths_answer_on_loopback_and_the_fleet_paths_outside(deployment: Deployment) -> None:
    inside, outside = f"https://localhost:{deployment.superlink_port}", f"https://localhost:{deployment.port}"
    assert answered(deployment, "GET", f"{inside}/docs") == 200
    for path in ("/v1/control/list-runs", "/v1/runtime/get-nodes", "/v1/fleet/pull-messages"):
        assert answered(deployment, "POST", f"{inside}{path}") == 415, "it is there and wants Flower's own format"
    assert answered(deployment, "POST", f"{outside}/v1/fleet/pull-messages") == 415
    assert answered(deployment, "GET", f"{outside}/health") == 200


def answered(deployment: Deployment, method: str, url: str) -> int:
    """The status code; the path goes out as it is written."""
    command = ["curl", "--silent", "--path-as-is", "--output", "/dev/null", "--write-out", "%{http_code}"]
    command += ["--cacert", str(deployment.server / "ca.crt"), "--request", method, url]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


# ---- who must be refused


def test_an_unregistered_key_is_refused_and_the_operators_see_why(
    deployment: Deployment, strangers: dict[str, str]
) -> None:
    assert all("not connected" in said for said in strangers.values())
    assert "does not accept this site's key" in strangers["unregistered"]
    assert "activate-node" in deployment.shell("fed-fsad server status kits/server")


def test_a_site_that_trusts_another_authority_refuses_the_server_and_says_why(strangers: dict[str, str]) -> None:
    assert "is not signed by the authority in" in strangers["wrong-ca"]


def test_a_server_with_an_expired_certificate_is_refused_and_named(strangers: dict[str, str]) -> None:
    assert "the server's certificate has expired" in strangers["expired"]


# ---- a run that needs all three sites in every round, so that its bits are known whatever happens to it


def test_a_site_killed_in_a_round_comes_back_and_the_round_is_repeated(
    deployment: Deployment, strict: Training, killed: subprocess.Popen[bytes]
) -> None:
    strict.wait("a whole round 1", lambda: strict.events("round", round=1, complete=True))
    assert killed.wait(PATIENCE_S) == 0
    failed, *_, whole = strict.events("round", round=1)
    assert (failed["complete"], failed["replies"], list(failed["rejected"])) == (False, 2, ["north"])
    assert (whole["replies"], whole["rejected"]) == (3, {})


def test_a_connection_cut_for_30_seconds_in_a_round_costs_time_and_nothing_else(
    deployment: Deployment, strict: Training
) -> None:
    strict.wait("round 2 at a site", lambda: any(deployment.site(name).works_on(2) for name in TRAINERS))
    assert not strict.events("round", round=2)
    deployment.cut(CUT_S)
    strict.wait("a whole round 2", lambda: strict.events("round", round=2, complete=True))
    assert all(deployment.site(name).daemon.pid() for name in TRAINERS), "no site gave up"


def test_a_killed_server_is_started_again_and_the_run_resumed_in_the_same_bits(
    deployment: Deployment, strict: Training, reference: RunDir
) -> None:
    strict.wait("round 3 at a site", lambda: any(deployment.site(name).works_on(3) for name in TRAINERS))
    for daemon in (deployment.superlink, deployment.proxy):
        os.killpg(int(daemon.pid() or 0), signal.SIGKILL)
    assert strict.ended() == 1
    assert "SuperLink has ended" in strict.said()
    assert "--resume" in strict.said()
    done = [event["round"] for event in strict.events("round", complete=True)]
    deployment.follow("The server's host was restarted")
    assert strict.run.summary()["status"] == "completed"
    assert done == [1, 2], "the kill came in round 3"
    assert [event["round"] for event in strict.events("round", complete=True)] == [1, 2, 3]
    assert_equal_bits(strict.run.path, reference, 3)


# ---- a run that goes on with whoever answers: an old version, a slow site, a full disk, a site that only watches


def test_a_site_slower_than_the_deadline_does_not_hold_up_the_round(deployment: Deployment, loose: Training) -> None:
    south = deployment.site("south")
    loose.wait("a round at south", lambda: south.trains(loose.run, 1))
    with south.stopped():
        loose.wait("round 1 without it", lambda: loose.events("round", round=1, complete=True))
    line = loose.events("site", round=1, site="south")[0]
    assert line["status"] == "no reply"
    # Where the deadline is long, the site's missing sign of life may be noticed first.
    late = f"no reply within {loose.run.config().federation.deadline_s:g} s"
    assert line["reason"] in (late, "its node went away before it answered; look whether the site is running")
    (round_,) = loose.events("round", round=1, complete=True)
    assert round_["replies"] == 1
    loose.wait("south is back", lambda: loose.events("site", site="south", status="ok"))
    assert "stood still" in south.said("supernode.log"), "its keeper has started the node again: docs/running.md"


def test_a_site_of_another_version_is_left_out_and_both_versions_are_named(loose: Training) -> None:
    texts = [event["text"] for event in loose.events("warning")]
    assert f"north runs fed_fsad 0.0.9 and the server {__version__}; install the same version" in texts
    assert not loose.events("site", site="north")


def test_a_predict_only_site_sends_figures_and_never_tensors(loose: Training) -> None:
    loose.wait("its figures", lambda: loose.events("site_evaluation", site="outpost"))
    assert all(0 <= event["headline"] <= 1 for event in loose.events("site_evaluation", site="outpost"))
    lines = loose.events("site", site="outpost")
    assert {(line["role"], line["bytes_up"]) for line in lines} == {("predict-only", 0)}


def test_a_full_disk_in_the_middle_of_a_release_costs_rounds_and_no_budget_is_lost(
    deployment: Deployment, loose: Training
) -> None:
    west = deployment.site("west")
    if not west.state.is_mount():
        pytest.skip("a small disk can only be mounted by root")
    loose.wait("west's first update", lambda: loose.events("site", site="west", status="ok"))
    full = fill(west.state / "full")
    loose.wait("west fails", lambda: loose.events("site", site="west", status="refused"))
    assert "outbox" in loose.events("site", site="west", status="refused")[0]["reason"]
    full.unlink()
    count = len(loose.events("site", site="west"))
    loose.wait(
        "west is back", lambda: any(line["status"] == "ok" for line in loose.events("site", site="west")[count:])
    )
    spent = [line["epsilon"] for line in loose.events("site", site="west", status="ok")]
    assert spent == sorted(set(spent)), "the account goes on where it was"
    assert "No space left on device" in deployment.shell("cat kits/west/state/site.log kits/west/state/supernode.log")


def test_a_revoked_site_is_thrown_out_of_a_run_under_way_and_the_operators_see_why(
    deployment: Deployment, loose: Training
) -> None:
    deployment.follow("A site leaves")
    south = deployment.site("south")
    wait_until("south is not connected", lambda: "not connected" in deployment.shell(STATUS_SOUTH))
    rounds = len(loose.events("round"))
    loose.wait("the run goes on", lambda: len(loose.events("round", complete=True)) > rounds + 1)
    south.daemon.stop()
    deployment.shell("fed-fsad site start kits/south/site.yaml --wait 60 || true")
    assert "does not accept this site's key" in deployment.shell(STATUS_SOUTH)
    assert "revoked" in deployment.shell("fed-fsad provision list kits | grep south")
    assert "south" not in deployment.shell("fed-fsad server status kits/server")


def test_ctrl_c_ends_the_run_and_says_how_to_go_on(loose: Training) -> None:
    loose.interrupt()
    assert loose.ended() == 130
    assert "--resume auto" in loose.said()


def test_no_secret_of_a_site_is_in_anything_the_server_keeps(deployment: Deployment, loose: Training) -> None:
    key = (deployment.kits / "outpost" / "node.key").read_bytes().splitlines()[3]
    theirs = [path for path in deployment.kits.joinpath("outpost").rglob("*") if path.is_file()]
    ours = [
        path for name in ("kits/server", "run", "strict", "loose") for path in (deployment.folder / name).rglob("*")
    ]
    for secret in (b"Mustermann", b"PID-90210", key):
        assert any(secret in path.read_bytes() for path in theirs), "there is something to find"
        assert not [path for path in ours if path.is_file() and secret in path.read_bytes()]
    assert b"Mustermann" not in loose.log.read_bytes()


# ---- operations


def test_certificates_are_renewed_while_sites_run(deployment: Deployment) -> None:
    before = (deployment.server / "server.crt").read_bytes()
    deployment.follow("Renew the server's certificate")
    assert (deployment.server / "server.crt").read_bytes() != before
    west = deployment.site("west")
    wait_until(
        "west is back", lambda: "not connected" not in deployment.shell("fed-fsad site status kits/west/site.yaml")
    )
    assert west.daemon.pid()


def test_a_backup_holds_what_cannot_be_made_again(deployment: Deployment) -> None:
    deployment.follow("Backup")
    names = subprocess.run(
        ["tar", "-tzf", "backup.tgz"], cwd=deployment.folder, capture_output=True, text=True, check=True
    )
    wanted = {"kits/authority/ca.key", "kits/server/var/state.db", "run/summary.json"}
    assert wanted <= set(names.stdout.splitlines())


def test_everything_stops_and_every_command_of_the_page_has_been_run(deployment: Deployment) -> None:
    deployment.follow("Stop")
    assert not deployment.superlink.pid()
    assert not deployment.proxy.pid()
    assert not any(deployment.site(name).daemon.pid() for name in TRAINERS)
    assert deployment.page.left == []
