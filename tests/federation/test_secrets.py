"""Planted markers: image names, folders, patients and the text of an exception are nowhere outside a hospital."""

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, RecordDict

from clients import train as client
from fed_fsad.config import parse_config
from fed_fsad.progress import PlainProgress
from fed_fsad.rundir import RunDir
from simulations.grid import InProcessGrid
from simulations.simulate import simulate
from tests.conftest import write_image

MARKERS = ("jane-doe", "ward-seven", "mrn-4711", "password-123")
"""An image's name, its folder, its patient, and what an exception says."""
TESTED = "server-own"
TEXT = """
name: secrets
data: {{kind: folder, root: {root}, manifest: list.csv, task: skin}}
hospitals:
  - {{name: north, holds: {{}}, policy: {{release_metrics: true}}}}
  - {{name: south, holds: {{}}}}
  - name: west
    holds: {{}}
    policy: {{privacy: example, epsilon: 8, largest_rho: 1000, unit: patient, methods: {{d24fad: [affine]}}}}
methods:
  d24fad: {{teacher: {{name: random}}, image_size: 64, local_steps: 1, batch: 4}}
federation: {{rounds: 2, suspend_after: 1}}
evaluation: {{shots: [2], draws: 1}}
arms: [local]
"""


def write_patients(root: Path) -> None:
    """36 train images of 36 patients and 8 test images; every train row carries three markers."""
    rows, seed = ["path,split,label,patient"], 0
    for split, label, count in (
        ("train", "normal", 33),
        ("train", "scar", 3),
        ("test", "normal", 4),
        ("test", "scar", 4),
    ):
        for number in range(count):
            seed += 1
            private = f"ward-seven/{label}/jane-doe-{number}.png", f"mrn-4711-{label}-{number}"
            name, patient = private if split == "train" else (f"{TESTED}/{label}-{number}.png", f"t-{label}-{number}")
            write_image(root / name, seed)
            rows.append(f"{name},{split},{label},{patient}")
    (root / "list.csv").write_text("\n".join(rows) + "\n")


def content_bytes(content: RecordDict) -> bytes:
    """Everything in a message: names, settings, figures, and the raw bytes of its arrays."""
    text = repr([sorted(content), list(content.config_records.values()), list(content.metric_records.values())])
    arrays = [(name, array) for record in content.array_records.values() for name, array in record.items()]
    return text.encode() + b"".join(name.encode() + array.data for name, array in arrays)


@pytest.fixture(scope="module")
def spied(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, list[bytes], str]:
    """A finished run, every message that travelled, and what the hospitals logged for themselves."""
    folder = tmp_path_factory.mktemp("secrets")
    write_patients(folder / "images")
    travelled: list[bytes] = []
    story: list[str] = []
    deliver, train_plainly = InProcessGrid._deliver, client._train_plainly

    def overheard(grid: InProcessGrid, message: Message) -> Message:
        answer = deliver(grid, message)
        travelled.extend(content_bytes(each.content) for each in (message, answer) if each.has_content())
        return copy.deepcopy(answer)

    def failing(site: Any, instruction: Any, *rest: Any) -> None:
        if site.name == "south" and instruction.round == 2:
            raise RuntimeError(f"password-123 in {site.samples[0].source.name}")
        train_plainly(site, instruction, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InProcessGrid, "_deliver", overheard)
        patch.setattr(client, "_train_plainly", failing)
        patch.setattr("clients.app.log.exception", lambda *said: story.append(repr(said) + _raised()))
        config = parse_config(TEXT.format(root=folder / "images"), "secrets.yaml")
        run = simulate(config, folder / "run", PlainProgress())
    return run, travelled, "".join(story)


def _raised() -> str:
    return repr(sys.exc_info()[1])


def test_the_run_did_all_that_could_tell(spied: tuple[RunDir, list[bytes], str]) -> None:
    run, travelled, story = spied
    sites = run.summary()["sites"]
    assert sites["west"]["epsilon"] > 0
    assert sites["south"]["faults"] == {"error": 1}
    assert "password-123" in story, "the hospital's own log has the story"
    assert "jane-doe" in story
    assert len(travelled) > 12
    assert b"north" in b"".join(travelled), "the messages were read"


def test_no_message_that_travels_carries_a_marker(spied: tuple[RunDir, list[bytes], str]) -> None:
    _, travelled, _ = spied
    for content in travelled:
        assert not [marker for marker in MARKERS if marker.encode() in content]


def test_no_file_of_the_run_carries_a_marker(spied: tuple[RunDir, list[bytes], str]) -> None:
    run, _, _ = spied
    files = [path for path in sorted(run.path.rglob("*")) if path.is_file()]
    names = {path.name for path in files}
    assert {"metrics.jsonl", "summary.json", "report.html", "config.yaml", "latest.json", "ledger.jsonl"} <= names
    assert any(path.suffix == ".safetensors" for path in files)
    for path in files:
        content = path.read_bytes()
        assert not [marker for marker in MARKERS if marker.encode() in content], path
        assert not [marker for marker in MARKERS if marker in str(path.relative_to(run.path))]


def test_the_server_shows_its_own_test_images_and_in_few_places(spied: tuple[RunDir, list[bytes], str]) -> None:
    run, travelled, _ = spied
    shown = {path.name for path in run.path.rglob("*") if path.is_file() and TESTED.encode() in path.read_bytes()}
    assert shown <= {"details.json", "report.html"}
    assert not any(TESTED.encode() in content for content in travelled)
