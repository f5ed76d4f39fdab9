"""No measured table stands in README or docs without the command that makes it again, or the word that none does."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from benchmarks.evidence import Entry, Evidence, chosen, load_evidence, make, summary
from fed_fsad.cli import app
from pretraining.__main__ import app as pretraining
from tests.test_docs import PAGES, REPOSITORY, check_command

EVIDENCE = load_evidence()
PROGRAMS = {"fed_fsad.cli": app, "pretraining": pretraining}
FIGURE = re.compile(r"[*+−~]*\d+\.\d")
"""How a measured figure begins in a cell; settings stand in backticks."""


def sections(page: Path) -> list[tuple[str, str]]:
    """(heading, text up to the next heading); headings inside code blocks are none."""
    parts: list[tuple[str, list[str]]] = []
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        if not fenced and re.match(r"#+ ", line):
            parts.append((line.lstrip("#").strip(), []))
        elif parts:
            parts[-1][1].append(line)
    return [(heading, "\n".join(lines)) for heading, lines in parts]


def measured(text: str) -> bool:
    """Whether a table in it holds three measured figures at least."""
    for table in re.findall(r"(?:^\|.*\n?)+", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), flags=re.M):
        cells = [cell.strip() for row in table.splitlines()[2:] for cell in row.split("|")[2:-1]]
        if sum(bool(FIGURE.match(cell)) for cell in cells) >= 3:
            return True
    return False


def commanded(text: str) -> bool:
    """Whether a shell block in it calls a program of ours."""
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```$", text, flags=re.M | re.S)
    return any(re.search(r"^(fed-fsad|python -m|make) ", block, flags=re.M) for block in blocks)


def stated() -> set[tuple[str, str]]:
    """(page, heading) of every measured table."""
    return {
        (page.relative_to(REPOSITORY).as_posix(), heading)
        for page in PAGES
        for heading, text in sections(page)
        if measured(text)
    }


def listed(evidence: Evidence) -> set[tuple[str, str]]:
    made = {(page, heading) for entry in evidence.entries for page, own in entry.tables.items() for heading in own}
    return made | {(own.page, own.heading) for own in evidence.by_hand}


def test_every_measured_table_has_its_command() -> None:
    known = listed(EVIDENCE)
    own = {
        (page.relative_to(REPOSITORY).as_posix(), heading)
        for page in PAGES
        for heading, text in sections(page)
        if commanded(text)
    }
    missing = sorted(stated() - known - own)
    assert not missing, f"no command makes these tables; put them into benchmarks/evidence.yaml: {missing}"


def test_every_listed_heading_is_there() -> None:
    there = {(page.relative_to(REPOSITORY).as_posix(), heading) for page in PAGES for heading, _ in sections(page)}
    assert listed(EVIDENCE) <= there


def test_names_are_of_one_entry_each() -> None:
    names = [entry.name for entry in EVIDENCE.entries]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("entry", EVIDENCE.entries, ids=lambda entry: entry.name)
def test_every_command_is_one(entry: Entry, tmp_path: Path) -> None:
    _, _, module, *words = entry.words(tmp_path, tmp_path)
    if module in PROGRAMS:
        check_command(typer.main.get_command(PROGRAMS[module]), words, "benchmarks/evidence.yaml")
        return
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None
    source = Path(found.origin).read_text(encoding="utf-8")
    for option in (word for word in words if word.startswith("--")):
        assert f'"{option}"' in source, f"{module} takes no {option}"


def test_a_table_without_a_command_would_be_noticed() -> None:
    table = "| | a | b | c |\n|---|---|---|---|\n| x | 0.5 | **0.6** | +0.1 ± 0.2 |\n"
    assert measured(table)
    assert not measured(table.replace("0.", "`0."))
    assert not measured("| key | default |\n|---|---|\n| `rounds` | 8 |\n")
    assert not commanded("see `python -m benchmarks.x`")
    assert commanded("```sh\nfed-fsad study x --out y\n```\n")


# ---- carried out

GOOD = Entry(name="good", run="python -m benchmarks.evidence --help", minutes=None, tables={"docs/x.md": ("A table",)})
BAD = Entry(name="bad", run="fed-fsad simulate {out}/none.yaml", minutes=1, tables={})
REAL = Entry(name="real", run="fed-fsad simulate {real}", minutes=None, tables={})
LISTED = Evidence(entries=(BAD, GOOD, REAL), by_hand=())


def test_a_failed_command_stops_no_other_and_what_is_made_is_not_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make([BAD, GOOD], tmp_path, None) == ["bad"]
    assert "the config cannot be read" in capsys.readouterr().err
    assert "--real" in (tmp_path / "good" / "output.md").read_text(encoding="utf-8")
    written = (tmp_path / "good" / "done.json").stat().st_mtime_ns
    assert make([GOOD], tmp_path, None) == []
    assert (tmp_path / "good" / "done.json").stat().st_mtime_ns == written
    text = summary(LISTED, tmp_path)
    assert f"| {json.loads((tmp_path / 'good' / 'done.json').read_bytes())['minutes']} | good/ | docs/x.md: A t" in text
    assert "| not made | bad/ |" in text


def test_what_needs_real_sets_is_left_out_without_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [entry.name for entry in chosen(LISTED, [], None)] == ["bad", "good"]
    assert "real: left out, it needs --real DIR" in capsys.readouterr().out
    assert [entry.name for entry in chosen(LISTED, ["real"], tmp_path)] == ["real"]
    assert str(tmp_path) in REAL.words(tmp_path, tmp_path)
    with pytest.raises(SystemExit, match="--only goood: the list has no such entry; did you mean 'good'"):
        chosen(LISTED, ["goood"], None)
    with pytest.raises(SystemExit, match="there is no such folder"):
        chosen(LISTED, [], tmp_path / "none")


def test_the_command_says_what_it_is() -> None:
    called = subprocess.run(
        [sys.executable, "-m", "benchmarks.evidence", "--only", "x"], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert called.returncode == 1
    assert "the list has no such entry" in called.stderr
