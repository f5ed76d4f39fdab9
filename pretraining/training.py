"""One training loop for every embedded network: AdamW, warm-up and cosine, resumable to the last bit."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from math import cos, pi
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from fed_fsad.errors import CheckpointError

Loss = Callable[[int], Tensor]
"""The loss of a step by its number, drawn from nothing but that number and the plan's seed."""
Point = dict[str, float]
"""One point of a learning curve: step, cpu_seconds, loss, and the watched figures."""


@dataclass(frozen=True)
class Plan:
    """What a training run follows; two runs of one plan on one machine give the same bits.

    save_every: steps between two state files, which are also the points of the curve. begun: SHA-256 of the weights
    that training starts from, empty when it starts from nothing.
    """

    name: str
    seed: int
    steps: int
    lr: float
    weight_decay: float
    save_every: int
    begun: str = ""

    def rate(self, step: int) -> float:
        """The learning rate: linear over the first twentieth, then half a cosine down to zero."""
        warm = max(1, self.steps // 20)
        return self.lr * min((step + 1) / warm, 0.5 * (1 + cos(pi * step / self.steps)))


def train(
    module: nn.Module,
    loss: Loss,
    plan: Plan,
    state: Path,
    watch: Callable[[], Mapping[str, float]],
) -> list[Point]:
    """Minimise `loss(step)` over the module's parameters and return the learning curve.

    loss: draws everything from (plan.seed, step), so that a resumed run sees what an unbroken one sees.
    state: file that is written every plan.save_every steps; when it exists the run goes on from there.
    watch: figures of the module as it stands, for the curve. Raises CheckpointError when `state` is of another plan.
    """
    decayed = [p for p in module.parameters() if p.ndim > 1]
    free = [p for p in module.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": plan.weight_decay}, {"params": free, "weight_decay": 0.0}], plan.lr
    )
    done, spent, curve = _resume(module, optimizer, plan, state)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    started, total = time.process_time(), 0.0
    with Progress(*columns) as progress:
        bar = progress.add_task(plan.name, total=plan.steps, completed=done)
        for step in range(done, plan.steps):
            module.train()
            for group in optimizer.param_groups:
                group["lr"] = plan.rate(step)
            value = loss(step)
            optimizer.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            total += float(value.detach())
            progress.update(bar, advance=1, description=f"{plan.name}, loss {float(value.detach()):.3f}")
            if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
                module.eval()
                seconds = spent + time.process_time() - started
                steps = step + 1 - (int(curve[-1]["step"]) if curve else 0)
                curve.append({"step": step + 1, "cpu_seconds": round(seconds, 1), "loss": total / steps, **watch()})
                total = 0.0
                progress.console.print(_line(curve[-1]), soft_wrap=True)
                _save(module, optimizer, plan, state, curve)
    module.eval()
    return curve


def _line(point: Point) -> str:
    return ", ".join(f"{name} {figure:.4g}" for name, figure in point.items())


def _save(module: nn.Module, optimizer: torch.optim.Optimizer, plan: Plan, state: Path, curve: list[Point]) -> None:
    content = {"plan": asdict(plan), "module": module.state_dict(), "optimizer": optimizer.state_dict(), "curve": curve}
    partial = state.with_suffix(".partial")
    torch.save(content, partial)
    os.replace(partial, state)


def _resume(
    module: nn.Module, optimizer: torch.optim.Optimizer, plan: Plan, state: Path
) -> tuple[int, float, list[Point]]:
    """Steps done, CPU seconds spent and the curve so far; zeros when there is no state file."""
    if not state.exists():
        return 0, 0.0, []
    content: dict[str, Any] = torch.load(state, weights_only=True, map_location="cpu")
    if content["plan"] != asdict(plan):
        raise CheckpointError(f"{state} belongs to another run; delete it or name another --work folder")
    module.load_state_dict(content["module"])
    optimizer.load_state_dict(content["optimizer"])
    curve: list[Point] = content["curve"]
    return int(curve[-1]["step"]), curve[-1]["cpu_seconds"], curve
