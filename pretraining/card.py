"""What stands beside embedded weights: fp16 safetensors, a card of how they were made, and their SHA-256."""

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from safetensors.torch import save
from torch import Tensor, nn

from fed_fsad.assets import SUMS, read_sums
from pretraining.device import best_device
from pretraining.training import Plan, Point

Table = Mapping[str, Mapping[str, float]]
"""Row name to column name to figure."""
NetworkT = TypeVar("NetworkT", bound=nn.Module)


@dataclass(frozen=True)
class Card:
    """How weights were made and what they reach.

    text: prose. images: size of the test sets, as `teacher_tables` and `clip_tables` take it. seeds: of the test sets,
    whose figures are averaged. tables: heading to figures. curve: the whole run.
    """

    title: str
    text: str
    command: str
    plan: Plan
    images: int
    seeds: Sequence[int]
    tables: Mapping[str, Table]
    curve: list[Point]


def publish(root: Path, name: str, weights: Mapping[str, Tensor], card: Card) -> str:
    """Write root/name/weights.safetensors and card.md and enter the SHA-256 in root/SHA256SUMS; returns it."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    content = save({key: halved(value) for key, value in sorted(weights.items())})
    digest = hashlib.sha256(content).hexdigest()
    _replace(folder / "weights.safetensors", content)
    _replace(folder / "card.md", _written(card, digest, len(content)).encode())
    sums = read_sums(root / SUMS) if (root / SUMS).exists() else {}
    sums[f"{name}/weights.safetensors"] = digest
    _replace(root / SUMS, "".join(f"{value}  {file}\n" for file, value in sorted(sums.items())).encode())
    return digest


def halved(value: Tensor) -> Tensor:
    """The tensor as it is stored: floats in half precision."""
    return value.detach().to(torch.float16).contiguous() if value.is_floating_point() else value


def as_stored(network: NetworkT) -> NetworkT:
    """The network with its weights rounded as the file will hold them, so that a card's figures are the file's."""
    network.cpu().load_state_dict({name: halved(value) for name, value in network.state_dict().items()})
    return network.eval()


def read_card(path: Path) -> dict[str, Any]:
    """The machine-readable head of a card: command, plan, sha256, hardware, cpu_seconds, figures."""
    _, head, _ = path.read_text().split("---\n", 2)
    content: dict[str, Any] = yaml.safe_load(head)
    return content


def _written(card: Card, digest: str, size: int) -> str:
    head = {
        "command": card.command,
        "plan": vars(card.plan),
        "images": card.images,
        "seeds": list(card.seeds),
        "sha256": digest,
        "bytes": size,
        "hardware": f"{_hardware()}, torch {torch.__version__}",
        "cpu_seconds": card.curve[-1]["cpu_seconds"],
        "figures": {heading: _figures(table) for heading, table in card.tables.items()},
    }
    parts = [f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n", f"# {card.title}\n", card.text.strip() + "\n"]
    parts += [f"## {heading}\n\n{_table(table)}" for heading, table in card.tables.items()]
    curve = {f"{point['step']:.0f}": {k: v for k, v in point.items() if k != "step"} for point in card.curve}
    parts.append(f"## Learning curve, by step\n\n{_table(curve)}")
    return "\n".join(parts)


def _table(table: Table) -> str:
    columns = list(next(iter(table.values())))
    rows = [["", *columns]] + [[row, *(f"{_rounded(f[c]):g}" for c in columns)] for row, f in table.items()]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]]) + "\n"


def _figures(table: Table) -> dict[str, dict[str, float]]:
    return {row: {column: _rounded(figure) for column, figure in found.items()} for row, found in table.items()}


def _rounded(figure: float) -> float:
    return round(float(figure), 3)


def _hardware() -> str:
    """The GPU that training runs on, else one thread of the processor."""
    return torch.cuda.get_device_name() if best_device().type == "cuda" else f"one thread of {_processor()}"


def _processor() -> str:
    """The processor's name where Linux tells it, else its architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    os.replace(partial, path)
