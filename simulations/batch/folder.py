"""The folder of many runs: whose it is, where each run lies, what each has cost, and which code made it."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

import yaml

from fed_fsad import __version__
from fed_fsad.durable import alone, replace
from fed_fsad.errors import CheckpointError
from fed_fsad.rundir import ROOT, Resume, first_difference

PATIENCE_S = 1.0
ROOMS = ("fed_fsad", "server", "clients", "simulations")


class Cost(TypedDict):
    """What a run took, over all its tries, and the code that ended it. peak: bytes of memory."""

    seconds: float
    peak: int
    code: str


def open_folder(out: Path, settings: Mapping[str, Any], word: str, resume: Resume) -> None:
    """Make `out` the folder of this `word` ("benchmark", "study"), or find that it is; the settings lie in WORD.yaml.

    Raises CheckpointError when it holds another one, one that must not be continued, or none that was asked for.
    """
    path = out / f"{word}.yaml"
    if not path.exists():
        if resume == "require":
            raise CheckpointError(f"{out} holds no {word} to resume; use --resume fresh or auto, or check the path")
        if out.is_dir() and any(out.iterdir()):
            raise CheckpointError(f"{out} holds files that are no {word}'s; choose another --out")
        try:
            replace(path, yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True).encode())
        except OSError as error:
            raise CheckpointError(f"{out} cannot be written ({error.strerror}); choose another --out") from error
        return
    if difference := first_difference(yaml.safe_load(path.read_text(encoding="utf-8")), dict(settings)):
        raise CheckpointError(f"{out} holds another {word}: {difference}; choose another --out")
    if resume == "fresh":
        raise CheckpointError(f"{out} already holds this {word}; add --resume auto, or choose another --out")


@contextmanager
def only_command(out: Path, word: str) -> Iterator[None]:
    """While this lasts no other command does runs of this `word` in `out`. Raises CheckpointError while one does."""
    with ExitStack() as held:
        try:
            held.enter_context(alone(out / ".lock", PATIENCE_S))
        except BlockingIOError as error:
            raise CheckpointError(
                f"another command is doing this {word} in {out}; wait until it has ended, or stop it"
            ) from error
        yield


def run_folder(out: Path, name: str) -> Path:
    """Where the run of that name lies."""
    return out / "runs" / name


def costs(out: Path) -> dict[str, Cost]:
    """What the runs that ended well took, by name."""
    path = out / "costs.json"
    found: dict[str, Cost] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def add_cost(out: Path, name: str, cost: Cost) -> None:
    """Keep what a run took, on top of what earlier tries of it did."""
    before = costs(out)
    earlier = before.get(name, {"seconds": 0.0, "peak": 0, "code": ""})
    whole: Cost = {
        "seconds": round(earlier["seconds"] + cost["seconds"], 1),
        "peak": max(earlier["peak"], cost["peak"]),
        "code": cost["code"],
    }
    replace(out / "costs.json", (json.dumps({**before, name: whole}, indent=1, sort_keys=True) + "\n").encode())


@lru_cache(maxsize=1)
def code() -> str:
    """This version of the program: its number, and a digest of every Python file that a run can execute."""
    digest = hashlib.sha256()
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:8]}"
