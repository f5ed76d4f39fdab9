"""What a piece of work costs, measured in a process of its own: CPU seconds and peak memory."""

import ctypes
import gc
import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

SECONDS = 4.0
Step = Callable[[], Mapping[str, Tensor]]
"""Does the work once and gives what it computed, by name."""


@dataclass(frozen=True)
class Cost:
    """cpu_s: CPU seconds of the quickest repetition. first_s: of the first, with all that is made once.

    peak_mib: the most memory held while at it: models and kept features too, Python and its libraries not.
    outcome: what the first repetition computed.
    """

    cpu_s: float
    first_s: float
    peak_mib: float
    outcome: Mapping[str, Tensor]


def cost(prepare: Callable[[], Step], seconds: float) -> Cost:
    """The cost of one step, on one thread, in a process of its own; what `prepare` does before it is not counted.

    prepare: called in that process; it must pickle. seconds: CPU seconds from which a step is not repeated again.
    """
    torch.set_num_threads(1)  # a fork must find no threads
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as process:
        return process.submit(_measure, prepare, seconds).result()


def difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """|one - other| / |one| over all tensors of both, Euclidean. Raises KeyError when the names differ."""
    if one.keys() != other.keys():
        raise KeyError(f"only one of them has {sorted(one.keys() ^ other.keys())}")
    apart = sum(float((one[name].double() - other[name].double()).square().sum()) for name in one)
    whole = sum(float(tensor.double().square().sum()) for tensor in one.values())
    return float((apart / whole) ** 0.5)


def print_lines(title: str, ways: Mapping[str, Callable[[], Step]], unit: float = 1, seconds: float = SECONDS) -> None:
    """Print a Markdown table, a line as soon as it is measured and held against the first one.

    unit: what seconds are divided by, e.g. images. seconds: CPU seconds after which a line is repeated no more.
    """
    print(f"\n{title}\n")
    print("| | CPU s | times | first time, CPU s | memory, MiB | times | difference |")
    print("|---|---|---|---|---|---|---|")
    first: Cost | None = None
    for name, prepare in ways.items():
        own = cost(prepare, seconds)
        first = first or own
        print(
            f"| {name} | {own.cpu_s / unit:.3f} | {first.cpu_s / own.cpu_s:.1f} | {own.first_s / unit:.3f} | "
            f"{own.peak_mib:.0f} | {first.peak_mib / own.peak_mib:.1f} | "
            f"{difference(first.outcome, own.outcome):.1e} |",
            flush=True,
        )


def _measure(prepare: Callable[[], Step], seconds: float) -> Cost:
    bare = memory_mib("VmRSS")
    step = prepare()
    _forget_peak()
    first_s, outcome = _timed(step)
    outcome = {name: tensor.detach().clone() for name, tensor in outcome.items()}
    spent = [first_s]
    while sum(spent) < seconds:
        spent.append(_timed(step)[0])
    return Cost(min(spent), first_s, memory_mib("VmHWM") - bare, outcome)


def _timed(step: Step) -> tuple[float, Mapping[str, Tensor]]:
    started = time.process_time()
    found = step()
    return time.process_time() - started, found


def _forget_peak() -> None:
    """Give back what preparing took, and let the kernel count the peak anew."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def memory_mib(figure: str) -> float:
    """A figure of /proc/self/status: VmRSS is what this process holds, VmHWM the most that it held."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition(f"{figure}:")[2].split()[0]) / 1024
