"""Figures of small variants of the shipped configs, committed; `python -m tests.golden` makes the files again."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fed_fsad.config import load_config
from fed_fsad.progress import PlainProgress
from simulations.simulate import simulate

FOLDER = Path(__file__).resolve().parent
CONFIGS = FOLDER.parents[1] / "configs"
TOLERANCE = 0.02
"""How far a figure may lie from its golden one: other processors round otherwise and may swap a pair of images."""
SMALL = (
    "data.test_normal=8", "data.test_abnormal=8", "data.pool=4", "federation.rounds=2", "evaluation.shots=[2]",
    "evaluation.draws=1", "evaluation.every=2", "arms=[]", "threads=1", "privacy.insecure_noise_seed=0",
)  # fmt: skip
"""Few images, two rounds, nothing to compare with; noise is seeded, as figures under it could not be compared else."""


@dataclass(frozen=True)
class Case:
    """A shipped config, and what makes it smaller still."""

    name: str
    config: str
    overrides: tuple[str, ...] = ()

    @property
    def file(self) -> Path:
        """Where its golden figures lie."""
        return FOLDER / f"{self.name}.json"


CASES = (
    Case("demo", "demo.yaml", (
        "methods.d24fad.local_steps=1", "methods.sdmad.local_steps=1",
        *(f"hospitals.{name}.holds.{key}={count}" for name, counts in {
            "riverside": (8, 8), "st-anna": (8, 8), "hillcrest": (16, 8), "lakeside": (8, 8),
        }.items() for key, count in zip(("normal", "abnormal"), counts, strict=True)),
    )),
    Case("privacy", "privacy.yaml", ("methods.sdmad.local_steps=1",)),
    Case("study", "studies/bases/phantoms.yaml", (
        "methods.sdmad.local_steps=1", "partition.normal=24", "partition.abnormal=16",
    )),
)  # fmt: skip


def measured(case: Case) -> dict[str, Any]:
    """Run the small config; its overrides, its figures by dotted name, and the bytes that travelled."""
    overrides = [*SMALL, *case.overrides]
    with tempfile.TemporaryDirectory() as folder:
        run = simulate(load_config(CONFIGS / case.config, overrides), Path(folder) / "run", PlainProgress())
        summary = run.summary()
    return {
        "config": case.config,
        "overrides": overrides,
        "bytes": summary["bytes"],
        "figures": dict(sorted(_figures(summary))),
    }


def _figures(summary: Mapping[str, Any]) -> Iterator[tuple[str, float | None]]:
    for method, block in summary["methods"].items():
        for detector, by_key in block["each"].items():
            for key, value in by_key.items():
                yield f"{method}.{detector}.{key}", value
        for key in ("headline", "average_precision", "pixel_auroc"):
            yield f"{method}.{key}", block[key]
    for site, block in summary["sites"].items():
        yield f"sites.{site}.epsilon", block["epsilon"]


def remake(case: Case) -> None:
    """Write the figures of now as the golden ones."""
    case.file.write_text(json.dumps(measured(case), indent=1) + "\n", encoding="utf-8")
