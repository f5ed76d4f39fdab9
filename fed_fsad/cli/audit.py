"""`fed-fsad privacy audit`: attacks on what a run promised, each beside the same attack where it must succeed."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fed_fsad.cli.bars import bars
from fed_fsad.durable import replace
from fed_fsad.errors import ConfigError

if TYPE_CHECKING:
    from fed_fsad.privacy.audit.finding import Finding

NOBODY = "no site of this run is under differential privacy: only what the attacks find without it is shown"
COLOURS = {"refutes": "bold red", "no": "yellow", "does": "green"}
"""By the first word of a verdict."""


def audit(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    checks: Annotated[
        str | None, typer.Option("--checks", help="Some checks only, with commas between; none stated: all that apply.")
    ] = None,
    method: Annotated[str | None, typer.Option("--method", help="One of the run's methods only.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the attacks, and of the noise they meet.")] = 0,
    shadows: Annotated[int, typer.Option("--shadows", min=8, help="Shadow releases of the check lira.")] = 48,
    out: Annotated[Path | None, typer.Option("--out", help="Write the figures as JSON, too.")] = None,
) -> None:
    """Attack what the sites of a run promised. A lower bound: an audit can refute a promise and never prove it.

    It trains nothing of the run on, opens no ledger and spends no budget: the records it hides or finds are the run's
    simulated hospitals' or phantoms, so the data is the auditor's own.
    """
    from fed_fsad.inference.audited import subjects_of  # imported late: `--help` should not wait for torch
    from fed_fsad.privacy.audit import checks as known_checks

    asked = known_checks.known([name.strip() for name in (checks or "").split(",") if name.strip()])
    if out is not None and out.is_dir():
        raise ConfigError(f"{out} is a folder; give --out a file, e.g. audit.json")
    console = Console(highlight=False)
    subjects = subjects_of(run, seed, method)
    if all(subject.terms is None for subject in subjects):
        console.print(NOBODY, soft_wrap=True)
    with bars() as on_check:
        findings = list(known_checks.audit(subjects, asked, on_check, shadows))
    _show(console, findings)
    if out is not None:
        _write(out, run, seed, shadows, findings)
        console.print(f"written to {escape(str(out))}", soft_wrap=True)


def _show(console: Console, findings: "Sequence[Finding]") -> None:
    """A table for every method and terms, and what none of them means."""
    for subject in dict.fromkeys((finding.method, finding.terms) for finding in findings):
        console.print(f"\n[bold]{subject[0]}[/] {escape(subject[1])}", soft_wrap=True)
        table = Table("check", "claimed", "found", "positive control", "verdict", box=None, pad_edge=False)
        for finding in findings:
            if (finding.method, finding.terms) == subject:
                found = escape(f"{finding.found}; {finding.note}" if finding.note else finding.found)
                colour = COLOURS.get(finding.verdict.split()[0], "bold")
                verdict = f"[{colour}]{finding.verdict}[/]"
                table.add_row(finding.check, escape(finding.claimed), found, escape(finding.control), verdict)
        console.print(table)
    console.print("\nAn audit finds lower bounds: it can refute a promise and never certify one.", soft_wrap=True)


def _write(out: Path, run: Path, seed: int, shadows: int, findings: "Sequence[Finding]") -> None:
    content = {
        "run": str(run),
        "seed": seed,
        "shadows": shadows,
        "findings": [asdict(finding) for finding in findings],
    }
    try:
        replace(out, (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise ConfigError(f"{out} cannot be written ({error.strerror}); choose another --out") from error
