"""Every shell block of the documentation is run, in the order of its page, on a small copy of the shipped configs.

deployment.md has a test of its own, tests/deployment, which runs its commands on real processes.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
ELSEWHERE = {"deployment.md"}
PAGES = [path for path in sorted((REPOSITORY / "docs").glob("*.md")) if path.name not in ELSEWHERE]
NOT_RUN = {
    r"git clone .*": "needs the network",
    r"cd fed-fsad": "follows the clone",
    r"make (demo|test|docs|flower)": "each is a command of its own: CI runs make test, tests/test_site.py make docs",
    r"source \.venv/bin/activate": "the test's own environment is active",
    r"pip install .*": "needs the package index",
    r"flwr run .*": "tests/federation runs Flower's engine",
    r"python -m benchmarks\..*": "minutes of computing; tests/benchmarks runs its parts",
    r"pgrep .*|kill NUMBER.*|.*flwr list": "shows and ends what a user has started by hand",
}
AS_IT_IS = {"privacy.yaml"}
"""With fewer images its policies would refuse: half a minute."""
SMALL: dict[str, Any] = {"rounds": 2, "shots": [2], "draws": 1}


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def lines(block: str) -> list[str]:
    """Commands of a block, continuation lines joined, without those that cannot run here."""
    found = [line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    return [line for line in found if not any(re.fullmatch(rf"({p})(\s+#.*)?", line) for p in NOT_RUN)]


def to_run(page: Path) -> list[str]:
    return [line for block in blocks(page) for line in lines(block)]


def shrink(config: dict[str, Any]) -> dict[str, Any]:
    """The same config with few images, steps and rounds, and the quicker method alone."""
    if config["data"]["kind"] == "phantoms":
        config["data"] |= {"test_normal": 2, "test_abnormal": 4, "pool": 4}
        for hospital in config["hospitals"]:
            hospital["holds"] |= {"normal": 4, "abnormal": 2}
    config["methods"] = {"d24fad": {**config["methods"].get("d24fad", {}), "local_steps": 1}}
    config["federation"] = {**config.get("federation", {}), "rounds": SMALL["rounds"]}
    config["evaluation"] = {**config.get("evaluation", {}), "shots": SMALL["shots"], "draws": SMALL["draws"]}
    return {**config, "arms": []}


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder like the repository's root: the configs, made small, and no runs."""
    (tmp_path / "configs").mkdir()
    for path in (REPOSITORY / "configs").glob("*.yaml"):
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        config = config if path.name in AS_IT_IS else shrink(config)
        (tmp_path / "configs" / path.name).write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
    return tmp_path


def shell(command: str, workplace: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "COLUMNS": "200"}
    return subprocess.run(
        ["bash", "-euc", command], cwd=workplace, env=environment, capture_output=True, text=True, check=False
    )


def class_folders(workplace: Path, root: str, normal: str) -> None:
    """Images of a user's own: drawn chest X-rays in class folders, the healthy ones in a class called `normal`."""
    drawn = workplace / "drawn" / "chest_xray"
    done = shell("fed-fsad data phantoms --task chest_xray --normal 60 --abnormal 24 --size 96 --out drawn", workplace)
    assert done.returncode == 0, done.stderr
    for row in csv.DictReader((drawn / "manifest.csv").read_text(encoding="utf-8").splitlines()):
        shown = row["categories"] or row["label"]
        folder = workplace / root / row["split"] / (normal if shown == "normal" else shown)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(drawn / row["path"], folder)


def of_own_data(workplace: Path) -> None:
    """The page's folder, and its two changed lines already in the config that it says to copy."""
    class_folders(workplace, "x-rays", "healthy")
    path = workplace / "configs" / "own_images.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    config["data"] |= {"root": str(workplace / "x-rays"), "normal": ["healthy"]}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")


def answered(workplace: Path) -> None:
    """What a language model sent back: a sign list of the task and categories that the page asks for."""
    signs = ["a round outline", "a sharp margin", "a uniform interior", "an area darker than its surroundings"]
    groups = {"mole": signs, "rash": ["many scattered spots", "a blurred margin", "an irregular outline", "a red area"]}
    normal = ["an even surface", "no separate spot", "the same tone everywhere", "fine parallel lines"]
    task = {"modality": "skin photograph", "normal": normal, "categories": groups}
    (workplace / "skin.yaml").write_text(yaml.safe_dump({"skin": task}), encoding="utf-8")


PREPARE: Mapping[str, Callable[[Path], None]] = {
    "quickstart.md": lambda workplace: class_folders(workplace, "my_images", "normal"),
    "own-data.md": of_own_data,
    "signs.md": answered,
}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)], ids=lambda path: path.name)
def test_the_commands_of_a_page_work_one_after_the_other(page: Path, workplace: Path) -> None:
    PREPARE.get(page.name, lambda _: None)(workplace)
    for line in to_run(page):
        done = shell(line.replace("/home/me", str(workplace)), workplace)
        assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_what_is_not_run_is_in_the_pages() -> None:
    """A pattern that matches nothing any more would hide a command that is new."""
    text = [line for page in PAGES for block in blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    for pattern in NOT_RUN:
        assert any(re.fullmatch(rf"({pattern})(\s+#.*)?", line.strip()) for line in text), pattern


def test_every_command_but_install_make_and_flower_is_run() -> None:
    calls = [line for page in PAGES for block in blocks(page) for line in block.splitlines() if "fed-fsad " in line]
    assert len([line for page in PAGES for line in to_run(page) if "fed-fsad " in line]) == len(calls)


def test_this_test_would_see_a_command_that_fails(workplace: Path) -> None:
    assert shell("fed-fsad simulate configs/none.yaml", workplace).returncode == 2
    assert shutil.which("bash")
