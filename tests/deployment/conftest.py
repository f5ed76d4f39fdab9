"""What the tests of the deployment share: one folder, three runs in it, and its logs where a test fails."""

import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import yaml

from fed_fsad.config import parse_config
from fed_fsad.progress import PlainProgress
from fed_fsad.rundir import RunDir
from simulations.simulate import simulate
from tests.deployment.disks import PRIVATE, planted_images, small_disk
from tests.deployment.harness import SEARCH, Deployment, Training, free_ports
from tests.deployment.strangers import with_expired_server, with_unregistered_key, with_wrong_authority

KEPT = pytest.StashKey[Deployment]()
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def deployment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """An empty folder to follow the page in; everything started in it is ended, also after a failure."""
    if shutil.which("nginx", path=SEARCH) is None:
        pytest.skip("nginx is not installed: apt install nginx-light")
    own = Deployment(tmp_path_factory.mktemp("deployment"))
    request.session.stash[KEPT] = own
    try:
        yield own
    finally:
        own.end()


@pytest.fixture(scope="module")
def reference(deployment: Deployment) -> RunDir:
    """The page's federation in one process."""
    project = yaml.safe_load((deployment.folder / "project.yaml").read_text(encoding="utf-8"))
    hospitals = [{"name": site["name"], "holds": site["rehearsal"]} for site in project["sites"]]
    raw = {**project["federation"], "name": "reference", "hospitals": hospitals, "arms": []}
    return simulate(parse_config(yaml.safe_dump(raw), "reference"), deployment.folder / "reference", PlainProgress())


@pytest.fixture(scope="module")
def round_s(deployment: Deployment) -> float:
    """Seconds of the slowest round of the page's run: deadlines have to fit this machine."""
    events = RunDir(deployment.folder / "run").events()
    return max(float(event["seconds"]) for event in events if event["kind"] == "round")


@pytest.fixture(scope="module")
def strict(deployment: Deployment, round_s: float) -> Training:
    """All three sites are needed in every round, so that its bits are known whatever happens to it."""
    settings = f"min_replies=3 deadline_s={max(40, 3 * round_s):.0f} wait_s=300 retries=4"
    return deployment.train("strict", *options(settings))


@pytest.fixture(scope="module")
def killed(deployment: Deployment, strict: Training) -> subprocess.Popen[bytes]:
    """North dies in round 1 and is started again at once, as often as it takes."""
    north = deployment.site("north")
    strict.wait("round 1 at north", lambda: north.works_on(1))
    north.signal(signal.SIGKILL)
    return deployment.background("until fed-fsad site start kits/north/site.yaml; do sleep 5; done")


@pytest.fixture(scope="module")
def strangers(deployment: Deployment) -> dict[str, str]:
    """What the operator reads at three sites that must be refused, by the reason: their status and failed checks."""
    (port,) = free_ports(1)
    sites = [with_unregistered_key(deployment), with_wrong_authority(deployment), with_expired_server(deployment, port)]
    with deployment.nginx("expired.conf"):
        starts = " & ".join(f"fed-fsad site start {site} --wait 60" for site in sites)
        deployment.shell(f"{starts} & wait")
        looks = [f"(fed-fsad site status {site} || fed-fsad site check {site}) > {site}.said 2>&1" for site in sites]
        deployment.shell(f"{' & '.join(looks)} & wait")
    return {site.parent.name: Path(f"{site}.said").read_text(encoding="utf-8") for site in sites}


@pytest.fixture(scope="module")
def loose(deployment: Deployment, round_s: float, old_version: Path) -> Iterator[Training]:
    """One reply is enough for a round; north runs an old version, west is private, outpost has images of its own."""
    deployment.follow("A site joins")
    outpost = deployment.kits / "outpost" / "site.yaml"
    planted_images(outpost.parent / "images")
    settings = outpost.read_text(encoding="utf-8").replace("manifest: null", "manifest: manifest.csv")
    outpost.write_text(settings, encoding="utf-8")
    deployment.shell("fed-fsad site stop kits/north/site.yaml; fed-fsad site stop kits/west/site.yaml")
    (deployment.kits / "west" / "policy.yaml").write_text(PRIVATE, encoding="utf-8")
    with small_disk(deployment.site("west").state):
        for name in ("west", "outpost"):
            deployment.shell(f"fed-fsad site start kits/{name}/site.yaml")
        deployment.shell("fed-fsad site start kits/north/site.yaml", PYTHONPATH=str(old_version))
        federation = options(f"min_replies=1 deadline_s={max(30, 3 * round_s):.0f} wait_s=20 rounds=50")
        yield deployment.train("loose", *federation, "--set", "evaluation.every=1")
        deployment.site("west").daemon.stop(1)


@pytest.fixture(scope="module")
def old_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code of today that calls itself 0.0.9; to be put on a process' PYTHONPATH."""
    folder = tmp_path_factory.mktemp("old")
    (folder / "fed_fsad").mkdir()
    lines = f"__path__ = [{str(ROOT / 'fed_fsad')!r}]\n__version__ = '0.0.9'\n"
    (folder / "fed_fsad" / "__init__.py").write_text(lines, encoding="utf-8")
    return folder


def options(text: str) -> list[str]:
    """Settings of `federation` as options of the command."""
    return [word for setting in text.split() for word in ("--set", f"federation.{setting}")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and (own := item.session.stash.get(KEPT, None)):
        report.sections.append(("logs of the deployment", own.logs()))
    return report
