"""Damaged files against every reader: nothing but our own clear errors, in bounded memory.

python -m benchmarks.fuzz_readers --inputs 100000

Each portion runs in a process of its own with a limit on its memory. A portion that ends otherwise than by itself (a
crash of a decoder, too much memory) stops the command, and the input that did it is kept.
"""

import argparse
import faulthandler
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.fuzz_seeds import valid_files
from fed_fsad.data.images import to_mask, to_unit
from fed_fsad.data.manifest import list_manifest
from fed_fsad.data.readers import open_file
from fed_fsad.data.settings import FolderData, Reading, Tiles
from fed_fsad.errors import DataError

PORTION = 5000
SHARED = 10
"""Files of different kinds that are damaged in the same way: drawing the changes takes longer than reading a file."""
MEMORY = 3 << 30
"""Bytes of a process's own data; a reader may unpack 1 GiB."""
SLOWEST_S = 120.0
"""Seconds that one input may take, on a machine that may be busy; then its process ends and says where it was."""
READINGS = (Reading(slices="every 2"), Reading(window="percentile", axis="sagittal", tiles=Tiles(side=16, tissue=0)))
WORDS = (0, 1, 7, 0x7F, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)

place = st.integers(0, (1 << 20) - 1).map(lambda x: x / (1 << 20))  # floats would favour the ends
torn = st.one_of(
    st.tuples(st.just("cut"), place, st.just(0)),
    st.tuples(st.just("drop"), place, st.integers(1, 64)),
    st.tuples(st.just("repeat"), place, st.integers(1, 64)),
    st.tuples(st.just("splice"), place, st.integers(0, 255)),
)
change = st.one_of(
    st.tuples(st.just("flip"), place, st.integers(0, 255)),
    st.tuples(st.just("flip"), place, st.integers(0, 255)),
    st.tuples(st.just("flip"), place.map(lambda x: x / 8), st.integers(0, 255)),  # most of what decides lies in front
    st.tuples(st.just("word"), place.map(lambda x: x / 4), st.sampled_from(WORDS)),
    torn,
)


def peak_kib() -> int:
    """The most memory this program took; getrusage would count what its parent took before it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


def damaged(data: bytes, changes: list[tuple[str, float, int]], others: list[bytes]) -> bytes:
    """`data` after every change in turn; a splice puts the rest of another file behind a place."""
    out = bytearray(data)
    for kind, where, value in changes:
        at = int(where * len(out))
        match kind:
            case "flip":
                out[at : at + 1] = bytes([value])
            case "word":
                out[at : at + 4] = value.to_bytes(4, "little")
            case "cut":
                del out[at:]
            case "drop":
                del out[at : at + value]
            case "repeat":
                out[at:at] = out[at : at + value]
            case "splice":
                other = others[value % len(others)]
                out[at:] = other[int(where * len(other)) :]
    return bytes(out)


def read(path: Path) -> bool:
    """Read everything in a file as runs with several settings would; False when all refuse it with a clear error."""
    several = READINGS[:1] if path.suffix in (".png", ".jpg", ".csv") else READINGS
    return max(_read(path, reading) for reading in several)  # every one, in contrast to any()


def _read(path: Path, reading: Reading) -> bool:
    try:
        if path.suffix == ".csv":
            list_manifest(FolderData(kind="folder", root=path.parent, manifest=Path(path.name)))
            return True
        opened = open_file(path, reading)
        for part, picture in opened.pictures():
            to_unit(picture.pixels, 8, picture.window)
            to_mask(opened.marks(part), 8)
    except DataError:
        return False
    return True


def portion(inputs: int, number: int, folder: Path) -> dict[str, Any]:
    """Read `inputs` damaged files; how many were read and refused by kind, the slowest, and the most memory."""
    seeds = valid_files(folder)
    counts: Counter[str] = Counter()
    slowest = 0.0

    @seed(number)
    @settings(
        max_examples=inputs // SHARED,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[*HealthCheck],
    )
    @given(st.integers(0, len(seeds) - 1), st.lists(change, min_size=1, max_size=4))
    def several(first: int, changes: list[tuple[str, float, int]]) -> None:
        nonlocal slowest
        for place in range(first, first + SHARED):
            suffix, data = seeds[place % len(seeds)]
            path = folder / f"input{suffix}"
            path.write_bytes(damaged(data, changes, [content for _, content in seeds]))
            started = time.perf_counter()
            faulthandler.dump_traceback_later(SLOWEST_S, exit=True)
            counts[f"{suffix} {'read' if read(path) else 'refused'}"] += 1
            slowest = max(slowest, time.perf_counter() - started)
            path.unlink()

    several()
    faulthandler.cancel_dump_traceback_later()
    return {
        "counts": counts,
        "slowest_s": round(slowest, 2),
        "memory_mib": peak_kib() >> 10,
    }


def run_portion(inputs: int, number: int, folder: Path) -> dict[str, Any]:
    """One portion in a process of its own. Raises RuntimeError, and keeps the input, when it does not end well."""
    call = [sys.executable, "-m", "benchmarks.fuzz_readers", "--inputs", str(inputs), "--portion", str(number)]
    done = subprocess.run([*call, "--folder", str(folder)], capture_output=True, text=True)
    if done.returncode:
        kept = sorted(folder.glob("input*"))
        raise RuntimeError(f"portion {number} ended with {done.returncode}; input: {kept}\n{done.stderr[-4000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def fuzz(inputs: int, folder: Path, first: int) -> dict[str, Any]:
    """All portions one after the other, with a line each; the sum of what they found."""
    counts: Counter[str] = Counter()
    slowest, memory, number = 0.0, 0, first
    while (left := inputs - counts.total()) > 0:
        found = run_portion(min(-(-left // SHARED) * SHARED, PORTION), number, folder)
        number += 1
        counts.update(found["counts"])
        slowest, memory = max(slowest, found["slowest_s"]), max(memory, found["memory_mib"])
        print(f"{counts.total()} inputs, slowest {slowest} s, most memory {memory} MiB", file=sys.stderr, flush=True)
    return {
        "inputs": counts.total(),
        "counts": dict(sorted(counts.items())),
        "slowest_s": slowest,
        "memory_mib": memory,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first portion; each has inputs of its own")
    parser.add_argument("--portion", type=int, help="run this portion alone, here")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    if arguments.portion is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        print(json.dumps(portion(arguments.inputs, arguments.portion, arguments.folder)))
        return
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="fuzz"))
    print(json.dumps(fuzz(arguments.inputs, folder, arguments.first), indent=1))


if __name__ == "__main__":
    main()
