"""What a run leaves behind: config, environment, metrics as they happen, checkpoints, summary, report."""

import json
import math
import platform
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from fed_fsad import __version__
from fed_fsad.config import Config, parse_config, resolved_yaml
from fed_fsad.durable import append, replace
from fed_fsad.errors import CheckpointError, DataError

Event = Mapping[str, Any]
"""One thing that happened, JSON-able, told apart by its "kind"."""

Resume = Literal["fresh", "auto", "require"]
"""fresh: refuse a folder that holds a run. auto: continue the run if there is one. require: there must be one."""

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("flwr", "torch", "torchvision", "open_clip_torch", "opacus", "numpy", "scikit-learn", "ray")


@dataclass(frozen=True)
class RunDir:
    """The folder of one run."""

    path: Path

    @classmethod
    def open(cls, path: Path, config: Config, resume: Resume) -> "RunDir":
        """A new run or the one that lies in `path`, by the mode. Raises DataError and CheckpointError as those two."""
        there = (path / "config.yaml").exists()
        return (
            cls.resume(path, config)
            if resume == "require" or (resume == "auto" and there)
            else cls.create(path, config)
        )

    @classmethod
    def create(cls, path: Path, config: Config) -> "RunDir":
        """Start a run in `path`. Raises DataError when a run already lies there (nothing written is ever lost), or when
        nothing can be written there.
        """
        if (path / "config.yaml").exists():
            raise DataError(f"{path} already holds a run; add --resume auto to continue it, or choose another --out")
        try:
            replace(path / "environment.json", _json(_environment()))
            replace(path / "config.yaml", resolved_yaml(config).encode())
        except OSError as error:
            raise DataError(f"{path} cannot be written ({error.strerror}); choose another --out") from error
        return cls(path)

    @classmethod
    def resume(cls, path: Path, config: Config) -> "RunDir":
        """Continue the run in `path`; the summary of one that failed then says "running", a completed one stays
        completed. Raises CheckpointError when it was made with another config, or when it is damaged.
        """
        run = cls(path)
        old = run.config().model_dump(mode="json")
        difference = first_difference(old, config.model_dump(mode="json"))
        if difference:
            raise CheckpointError(
                f"{path} was started with another config: {difference}; "
                "resume it with the config it was started with, or choose another --out"
            )
        run._mend_log()
        run.events()
        if run.run_id and run.status == "failed":
            run.mark_running()
        return run

    def config(self) -> Config:
        """The resolved config of this run. Raises CheckpointError when there is none."""
        path = self.path / "config.yaml"
        if not path.exists():
            raise CheckpointError(f"{self.path} holds no run to resume; use --resume fresh or auto, or check the path")
        return parse_config(path.read_text(encoding="utf-8"), str(path))

    @property
    def run_id(self) -> str:
        """The identity of the run across restarts: what hospitals' ledgers know it by. Raises CheckpointError."""
        path = self.path / "environment.json"
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["run_id"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} cannot be read; restore it, or choose another --out") from error

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    def site(self, name: str) -> Path:
        """The state folder of a simulated hospital."""
        return self.path / "sites" / name

    def log(self, *events: Event) -> None:
        """Append a line each to metrics.jsonl, on disk before this returns."""
        lines = "".join(json.dumps(_plain(event), allow_nan=False) + "\n" for event in events)
        with (self.path / "metrics.jsonl").open("ab") as file:
            append(file, lines.encode())

    def _mend_log(self) -> None:
        """Cut off a last line that a kill left without its end, so that the next line starts on its own."""
        path = self.path / "metrics.jsonl"
        if path.exists() and not (data := path.read_bytes()).endswith(b"\n"):
            replace(path, data[: data.rfind(b"\n") + 1])

    def events(self) -> list[dict[str, Any]]:
        """What happened so far; a last line that a kill cut short is left out. Raises CheckpointError when damaged."""
        path = self.path / "metrics.jsonl"
        whole = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        return [_event(path, number, line) for number, line in enumerate(whole, start=1)]

    @property
    def status(self) -> str:
        """completed, failed or running, as the summary says; a run without one is running."""
        return str(self.summary().get("status", "running"))

    def mark_running(self) -> None:
        """Let the summary say that there is work left."""
        self.write_summary({**self.summary(), "status": "running", "error": None})

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Replace summary.json."""
        replace(self.path / "summary.json", _json(summary))

    def summary(self) -> dict[str, Any]:
        """The summary, empty before the first one was written."""
        path = self.path / "summary.json"
        loaded: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return loaded


def first_difference(old: Any, new: Any, key: str = "") -> str | None:
    """The first key in which two plain structures differ, as "key was … and is …", or None."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(name for name in new if name not in old)]:
            inner = f"{key}.{name}" if key else str(name)
            found = first_difference(old.get(name), new.get(name), inner)
            if found:
                return found
        return None
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        steps = (first_difference(a, b, f"{key}.{i}") for i, (a, b) in enumerate(zip(old, new, strict=True)))
        return next((step for step in steps if step), None)
    return None if old == new else f"{key} was {old!r} and is {new!r}"


@lru_cache(maxsize=64)
def from_root(text: str) -> Path:
    """A path of Flower's run config. Flower starts its apps in folders of their own, and the two apps in different
    ones: what is not absolute is meant from the repository's root.
    """
    return (ROOT / text).resolve()


def _event(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        event: dict[str, Any] = json.loads(line)
        return {**event, "kind": event["kind"]}
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: line {number} is damaged; remove that line, or restore the file") from error


def _environment() -> dict[str, Any]:
    return {"run_id": uuid.uuid4().hex, "started": datetime.now(UTC).isoformat(timespec="seconds"), **installed()}


def installed() -> dict[str, Any]:
    """The versions of this program, of Python, of the platform, and of the packages that figures depend on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "fed_fsad": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "versions": versions,
    }


def _plain(content: Any) -> Any:
    """JSON has no NaN: figures that do not exist are written as null."""
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _json(content: Any) -> bytes:
    return (json.dumps(_plain(content), indent=1, allow_nan=False) + "\n").encode()
