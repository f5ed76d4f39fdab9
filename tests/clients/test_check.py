"""`site check` on sites that are really broken: the line that is wrong says why and what to do, others stay calm."""

import ast
import codecs
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from clients.check import CHECKS, Line, images, inspect, training
from fed_fsad import methods
from fed_fsad.data import check as data_check
from fed_fsad.data.samples import Sample
from fed_fsad.methods.method import Method
from fed_fsad.privacy.accounting import noise_for
from fed_fsad.privacy.ledger import Ledger
from fed_fsad.privacy.lines import Request
from fed_fsad.provision.keys import make_node_keys
from fed_fsad.residents import resident
from tests.conftest import write_image, write_set

SERVER = ("node key", "server name", "port", "clock", "authority", "certificate", "server")
PRIVATE = "privacy: example\nepsilon: 8\nlargest_rho: 50\nmethods: {sdmad: [context], d24fad: [affine]}\n"


@pytest.fixture
def site() -> Iterator[Path]:
    """A sound site but for the network, in a folder that other users may enter."""
    folder = Path(tempfile.mkdtemp(prefix="fed-fsad-check-"))
    folder.chmod(0o755)
    write_set(folder / "images", {"train/normal": 12, "train/mass": 10, "test/normal": 10, "test/mass": 10})
    for i, path in enumerate(sorted((folder / "images").rglob("*.png"))):
        write_image(path, 1000 + i, (80, 70))
    (folder / "policy.yaml").write_text("privacy: off\n")
    make_node_keys(folder / "node.key")
    (folder / "site.yaml").write_text(
        "name: north\ndata: {kind: folder, root: images, task: brain_mri}\npolicy: policy.yaml\nstate: state\n"
        "server: {address: 'localhost:1', ca: ca.crt, key: node.key}\n"
    )
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Everything is loaded before a test gives up the right to read this installation."""
    codecs.lookup("idna")  # which names of hosts go through
    for name in methods.names():
        resident(name, methods.settings_type(name)(), 0)


@pytest.fixture(autouse=True)
def tried(monkeypatch: pytest.MonkeyPatch) -> Callable[[Method, Sequence[Sample]], None]:
    """The trial of a few images as it is; the other tests go without, because encoding takes a while."""
    real = training._try
    monkeypatch.setattr(training, "_try", lambda method, samples: None)
    return real


def lines(site: Path) -> dict[str, Line]:
    return dict(inspect(site / "site.yaml"))


def test_a_sound_site_is_in_order_up_to_the_network(site: Path) -> None:
    found = lines(site)
    assert list(found) == ["site.yaml", *(check.name for check in CHECKS)]
    here = [name for name in found if name not in SERVER[1:]]
    assert {name: found[name].status for name in here} == dict.fromkeys(here, "ok")
    assert "train 22 images (12 normal, 10 mass)" in found["image list"].text
    assert "images of 80 x 70 pixels" in found["image sizes"].text


def spoil_settings(site: Path) -> None:
    (site / "site.yaml").write_text((site / "site.yaml").read_text() + "rolle: train\n")


def corrupt_image(site: Path) -> None:
    (site / "images/train/mass/000.png").write_bytes(b"\x89PNG but not really")


def copy_image(site: Path) -> None:
    shutil.copy(site / "images/train/normal/000.png", site / "images/train/normal/copy.png")


def copy_into_test(site: Path) -> None:
    shutil.copy(site / "images/train/normal/000.png", site / "images/test/normal/copy.png")


def share_a_patient(site: Path) -> None:
    names = sorted(path.relative_to(site / "images") for path in (site / "images").rglob("*.png"))
    rows = [f"{name},{name.parts[0]},{name.parts[1]},p{i % 21}" for i, name in enumerate(names)]
    (site / "images/list.csv").write_text("\n".join(["path,split,label,patient", *rows]))
    (site / "site.yaml").write_text(
        (site / "site.yaml").read_text().replace("root: images", "root: images, manifest: list.csv")
    )


def lose_most_normals(site: Path) -> None:
    for path in sorted((site / "images/train/normal").iterdir())[2:]:
        path.unlink()


def nearly_empty_class(site: Path) -> None:
    for path in sorted((site / "images/train/mass").iterdir())[3:]:
        path.unlink()


def unknown_task(site: Path) -> None:
    (site / "site.yaml").write_text((site / "site.yaml").read_text().replace("brain_mri", "knee_mri"))


def tiny_images(site: Path) -> None:
    write_image(site / "images/train/mass/000.png", 5, (20, 20))


def lose_images(site: Path) -> None:
    (site / "images").rename(site / "gone")


def mistype_policy(site: Path) -> None:
    (site / "policy.yaml").write_text("privacy: of\n")


def unknown_method(site: Path) -> None:
    (site / "policy.yaml").write_text("methods: {d24: [affine]}\n")


def too_much_noise(site: Path) -> None:
    (site / "policy.yaml").write_text(PRIVATE.replace("50", "0.01"))


def state_is_a_file(site: Path) -> None:
    (site / "state").write_text("")


def damage_ledger(site: Path) -> None:
    (site / "policy.yaml").write_text(PRIVATE)
    (site / "state").mkdir()
    (site / "state/ledger.jsonl").write_text('{"kind": "header"}\n')


def spend(site: Path, share: float) -> None:
    """Charge the ledger so that `share` of ε = 8 is spent."""
    (site / "policy.yaml").write_text(PRIVATE)
    with Ledger.open(site / "state/ledger.jsonl", unit="image", delta=1e-5, epsilon=8) as ledger:
        sigma = noise_for(8 * share, 1e-5, 1)
        request = Request(run="r", round=1, method="sdmad", key="k")
        ledger.charge(request, "digest", releases=1, sigma=sigma, secure=True)


def asked_for(site: Path) -> None:
    """A ledger that a server's terms began, at a site whose policy asks for nothing."""
    spend(site, 0.5)
    (site / "policy.yaml").write_text("privacy: off\n")


def tightened(site: Path) -> None:
    """The policy's terms as a server made them stricter: another δ stands in the ledger."""
    spend(site, 0.5)
    (site / "policy.yaml").write_text(PRIVATE + "delta: 1e-4\n")


def lose_key(site: Path) -> None:
    (site / "node.key").unlink()


def open_key(site: Path) -> None:
    (site / "node.key").chmod(0o644)


def garble_key(site: Path) -> None:
    (site / "node.key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")


def other_kind_of_key(site: Path) -> None:
    form = (Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    (site / "node.key").write_bytes(ed25519.Ed25519PrivateKey.generate().private_bytes(*form))


def no_server(site: Path) -> None:
    text = (site / "site.yaml").read_text()
    (site / "site.yaml").write_text(text[: text.index("server:")])


@pytest.mark.parametrize(
    ("damage", "check", "status", "said", "remedy", "skipped"),
    [
        (spoil_settings, "site.yaml", "fail", "unknown key 'rolle'", "", [check.name for check in CHECKS]),
        (corrupt_image, "images", "warn", "train/mass/000.png", "", []),
        (copy_image, "duplicates", "warn", "copy.png", "remove the copies", []),
        (copy_into_test, "duplicates", "fail", "test/normal/copy.png", "", ["training"]),
        (share_a_patient, "splits", "fail", "train/mass/001.png and test/mass/000.png", "", ["training"]),
        (nearly_empty_class, "classes", "warn", "3 train mass", "add images", []),
        (lose_most_normals, "training", "warn", "it needs 3 normal train images and there are 2: add some", "", []),
        (
            unknown_task,
            "training",
            "warn",
            "sdmad: no bundled sign list knows its task",
            "--config federation.yaml",
            [],
        ),
        (tiny_images, "image sizes", "warn", "train/mass/000.png", "originals", []),
        (lose_images, "image list", "fail", "images", "", ["images", "classes", "splits", "training"]),
        (mistype_policy, "policy", "fail", "privacy: ", "", ["ledger", "training"]),
        (unknown_method, "policy", "fail", "'d24', which is no method", "d24fad, sdmad", ["ledger", "training"]),
        (too_much_noise, "training", "fail", "the policy stops at 0.01", "", []),
        (state_is_a_file, "state folder", "fail", "File exists", "name another state folder", ["ledger"]),
        (damage_ledger, "ledger", "fail", "line 1 of the ledger", "from a backup", []),
        (lambda site: spend(site, 1), "ledger", "fail", "of 8 spent, 0", "nothing more can be trained", []),
        (lambda site: spend(site, 0.95), "ledger", "warn", "ε = 7.6 of 8 spent, 0.4 left", "not be enough", []),
        (lambda site: spend(site, 0.5), "ledger", "ok", "ε = 4 of 8 spent, 4 left", "", []),
        (asked_for, "ledger", "ok", "ε = 4 spent under what servers asked for; the policy sets no budget", "", []),
        (tightened, "ledger", "ok", "ε = 4 of 8 spent, 4 left; whether a server asks for more", "", []),
        (lose_key, "node key", "fail", "there is no key", "site keygen", []),
        (open_key, "node key", "fail", "others may read", "chmod 600", []),
        (garble_key, "node key", "fail", "holds no private key", "node.key", []),
        (other_kind_of_key, "node key", "fail", "is no ECDSA key", "site keygen", []),
        (no_server, "connection", "fail", "names no server", "server:", list(SERVER)),
    ],
)
def test_what_is_broken_is_named_with_a_remedy_and_what_hangs_on_it_is_skipped(
    site: Path, damage: Callable[[Path], None], check: str, status: str, said: str, remedy: str, skipped: list[str]
) -> None:
    damage(site)
    found = lines(site)
    line = found[check]
    assert (line.status, said in line.text, remedy in line.remedy) == (status, True, True), line
    for name in skipped:
        assert found[name].status == "skipped", name
        assert found[name].text.startswith("needs ")


def test_a_few_images_are_really_tried(
    site: Path, monkeypatch: pytest.MonkeyPatch, tried: Callable[[Method, Sequence[Sample]], None]
) -> None:
    monkeypatch.setattr(training, "_try", tried)
    found = lines(site)["training"]
    assert (found.status, "sdmad: category 'mass' of task 'brain_mri' has no signs" in found.text) == ("warn", True)
    assert found.text.startswith("d24fad: 12 images; ")


def test_every_kind_of_finding_of_data_check_has_its_line() -> None:
    package = Path(data_check.__file__).parent
    known = {
        node.value
        for path in package.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    groups = (images.LISTED, images.READ, images.COUNTED, images.SHAPED, images.TWICE, images.APART)
    assert {code for group in groups for code in group} <= known | {"no-train"}, "f'no-{split}'"
