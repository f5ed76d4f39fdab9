"""Makes the tables again that README and docs state, by the commands of benchmarks/evidence.yaml.

    python -m benchmarks.evidence [--real DIR] [--only NAME]

Everything lies under runs/evidence/VERSION/NAME, the version being that of the code: what is complete there is not made
again, and other code makes its own. A command that fails stops no other. summary.md says what was made, by which
command, in how many minutes, for which table. --real names a folder that holds brain_mri, retina, chest_xray and
lung_histology; without it their tables are left out.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from pydantic import Field

from fed_fsad.data.settings import Settings
from fed_fsad.durable import replace
from fed_fsad.names import suggestion
from simulations.batch.folder import code

REPOSITORY = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_suffix(".yaml")


class Entry(Settings):
    """A command. tables: the headings, page by page, under which its tables stand."""

    name: str
    run: str
    minutes: float | None
    tables: Mapping[str, tuple[str, ...]]

    @property
    def real(self) -> bool:
        """Whether it needs the folder of real sets."""
        return "{real}" in self.run

    def words(self, out: Path, real: Path | None) -> list[str]:
        """The command line, in this Python."""
        line = self.run.format(out=shlex.quote(str(out)), real=shlex.quote(str(real)))
        program, *words = shlex.split(line)
        return [sys.executable, *(words if program == "python" else ["-m", "fed_fsad.cli", *words])]


class ByHand(Settings):
    """A table that no command makes."""

    page: str
    heading: str
    why: str


class Evidence(Settings):
    """The whole list."""

    entries: tuple[Entry, ...] = Field(min_length=1)
    by_hand: tuple[ByHand, ...]


def load_evidence() -> Evidence:
    """The committed list."""
    return Evidence.model_validate(yaml.safe_load(LIST.read_text(encoding="utf-8")))


def make(entries: Sequence[Entry], out: Path, real: Path | None) -> list[str]:
    """Run what is not complete in `out`; the names of the commands that failed."""
    failed = []
    for number, entry in enumerate(entries, start=1):
        folder = out / entry.name
        if (folder / "done.json").exists():
            print(f"[{number}/{len(entries)}] {entry.name}: made already", flush=True)
            continue
        about = "time unknown" if entry.minutes is None else f"about {entry.minutes:g} min on one core"
        print(f"[{number}/{len(entries)}] {entry.name}: {entry.run} ({about})", flush=True)
        if problem := _run(entry, folder, real):
            failed.append(entry.name)
            print(f"{entry.name} failed: {problem}", file=sys.stderr, flush=True)
    return failed


def _run(entry: Entry, folder: Path, real: Path | None) -> str:
    """Empty, or the last thing it said; all of it lies in output.md."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with (folder / "output.md").open("w", encoding="utf-8") as file:
        done = subprocess.run(entry.words(folder, real), stdout=file, stderr=subprocess.STDOUT, cwd=REPOSITORY)
    minutes = round((time.monotonic() - started) / 60, 1)
    if done.returncode == 0:
        replace(folder / "done.json", json.dumps({"run": entry.run, "minutes": minutes}).encode())
        return ""
    said = (folder / "output.md").read_text(encoding="utf-8", errors="replace").split("\n")
    return next((line for line in reversed(said) if line.strip()), f"exit code {done.returncode}")


def summary(evidence: Evidence, out: Path) -> str:
    """What lies in `out`, as Markdown."""
    lines = [f"# Evidence of {out.name}", "", "| made by | minutes | lies in | stands in |", "|---|---|---|---|"]
    for entry in evidence.entries:
        done = out / entry.name / "done.json"
        minutes = f"{json.loads(done.read_bytes())['minutes']}" if done.exists() else "not made"
        places = "; ".join(f"{page}: {', '.join(headings)}" for page, headings in entry.tables.items())
        lines.append(f"| `{entry.run}` | {minutes} | {entry.name}/ | {places or 'the cards of the weights'} |")
    lines += ["", "No command makes these tables again:", ""]
    lines += [f"* {own.page}, {own.heading}: {own.why}" for own in evidence.by_hand]
    return "\n".join(lines) + "\n"


def chosen(evidence: Evidence, only: Sequence[str], real: Path | None) -> list[Entry]:
    """The entries asked for. Raises SystemExit with a sentence for a name or a folder that does not exist."""
    names = [entry.name for entry in evidence.entries]
    for name in only:
        if name not in names:
            raise SystemExit(f"--only {name}: the list has no such entry; {suggestion(name, names)}")
    if real is not None and not real.is_dir():
        raise SystemExit(f"--real {real}: there is no such folder; check the path")
    asked = [entry for entry in evidence.entries if not only or entry.name in only]
    for entry in asked:
        if entry.real and real is None:
            print(f"{entry.name}: left out, it needs --real DIR")
    return [entry for entry in asked if real is not None or not entry.real]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, help="folder of the real sets")
    parser.add_argument("--only", action="append", default=[], help="make this entry alone; may be repeated")
    parser.add_argument("--out", type=Path, default=Path("runs/evidence"))
    asked = parser.parse_args()
    evidence, out = load_evidence(), asked.out.resolve() / code()
    real = asked.real.expanduser().resolve() if asked.real else None
    failed = make(chosen(evidence, asked.only, real), out, real)
    replace(out / "summary.md", summary(evidence, out).encode())
    print(f"summary: {out / 'summary.md'}")
    if failed:
        raise SystemExit(f"{len(failed)} commands failed ({', '.join(failed)}); mend that and start again")


if __name__ == "__main__":
    main()
