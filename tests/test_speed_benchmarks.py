"""The commands of docs/speed.md run, and what they compare is the same work."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


def lines(module: str, *arguments: str) -> list[tuple[str, float]]:
    """What a command prints: every way of doing the work and how far its outcome is from the first one's."""
    call = [sys.executable, "-m", f"benchmarks.{module}", *arguments, "--seconds", "0"]
    done = subprocess.run(call, capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[1])
    rows = re.findall(r"^\| ([^|]+) \|(?: [^|]+ \|){5} (\S+) \|$", done.stdout, flags=re.MULTILINE)
    return [(name, float(apart)) for name, apart in rows if name not in ("", "---")]


@pytest.mark.slow
def test_a_step_and_a_score_of_d24fad_are_those_of_the_plain_loop() -> None:
    found = lines("d24fad_step", "--teacher", "random", "--size", "64", "--batch", "4", "--shots", "2")
    assert [name for name, _ in found].count("plain") == 2
    assert len(found) == 7
    assert all(apart < 1e-4 for _, apart in found)


@pytest.mark.slow
def test_a_step_of_sdmad_is_that_of_the_plain_loop() -> None:
    found = lines("sdmad_step", "--models", "random", "--batch", "2")
    assert [name for name, _ in found].count("**ours**") == 2
    assert len(found) == 7
    assert all(apart < 1e-4 for _, apart in found)
