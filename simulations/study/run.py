"""One command's worth of study: its cells, their table, their report."""

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import yaml

from fed_fsad.errors import ConfigError
from fed_fsad.evaluation.report import write_page
from fed_fsad.evaluation.report.table import Cell as Box
from fed_fsad.evaluation.report.table import Table, table
from fed_fsad.evaluation.report.words import GAP, amount, data_size, duration, epsilon
from fed_fsad.names import suggestion
from fed_fsad.rundir import RunDir
from simulations.batch.budget import Limits
from simulations.batch.execute import Say, execute
from simulations.batch.folder import code, costs, only_command, open_folder, run_folder
from simulations.batch.table import check_failed
from simulations.study.collect import costs_of, figures, write_results
from simulations.study.page import Findings, parts
from simulations.study.plan import Cell, plan
from simulations.study.settings import StudySettings


def study(settings: StudySettings, origin: str, out: Path, limits: Limits, only: Sequence[str], say: Say) -> None:
    """Do the cells that match a pattern of `only` (all without one), and write results.csv and report.html into `out`.

    Cells that are complete are not done again, one that was stopped goes on where it was. A cell that fails stops no
    other: table and report are made of all that are complete, and FederationError names the failed ones at the end.
    Raises ConfigError and CheckpointError before anything is trained.
    """
    cells = plan(settings, origin)
    chosen = _chosen(cells, only)
    open_folder(out, settings.model_dump(mode="json"), "study", "auto")
    say(f"{settings.name}: {amount(len(chosen), 'cell')}{f' of {len(cells)}' if only else ''}")
    for text in _older(cells, out):
        say(f"warning: {text}")
    with only_command(out, "study"):
        failed = execute(chosen, out, limits, say)
        write(settings, cells, out, failed)
    check_failed(failed, len(chosen), "mend that and start the same command again")


def write(settings: StudySettings, cells: Sequence[Cell], out: Path, failed: dict[str, str]) -> None:
    """Make results.csv and report.html of the cells that are complete."""
    done = [cell for cell in cells if cell.name not in failed and _complete(cell, out)]
    found, spent = figures(done, out), costs_of(done, out)
    write_results(out / "results.csv", found, spent, list(settings.axes))
    findings = Findings(settings, found, spent)
    notices = [*_older(cells, out), *(f"The cell {name} failed: {why}" for name, why in failed.items())]
    left = len(cells) - len(done) - len(failed)
    page = {
        "name": settings.name,
        "question": settings.question,
        "facts": _facts(settings, cells, done, out),
        "notices": notices + ([f"{amount(left, 'cell')} still to do."] if left else []),
        "parts": list(parts(findings)),
        "costs": _costs(findings),
        "text": yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110),
    }
    write_page(out / "report.html", "study.html", page)


def _complete(cell: Cell, out: Path) -> bool:
    return RunDir(run_folder(out, cell.name)).status == "completed"


def _chosen(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    names = [cell.name for cell in cells]
    for pattern in only:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(f"--only {pattern}: no cell is called that; {suggestion(pattern, names)}")
    return [cell for cell in cells if not only or any(fnmatchcase(cell.name, pattern) for pattern in only)]


def _older(cells: Sequence[Cell], out: Path) -> list[str]:
    """What a reader must know of cells that another version of the code has made."""
    known = costs(out)
    older = [cell.name for cell in cells if cell.name in known and known[cell.name]["code"] != code()]
    if not older:
        return []
    versions = sorted({known[name]["code"] for name in older})
    return [
        f"{amount(len(older), 'cell')} ({older[0]}{', …' if len(older) > 1 else ''}) come from other code "
        f"({', '.join(versions)}; now {code()}); delete their folders under runs/ to make them again"
    ]


def _facts(settings: StudySettings, cells: Sequence[Cell], done: Sequence[Cell], out: Path) -> list[tuple[str, str]]:
    known = costs(out)
    return [
        ("cells", f"{len(done)} of {len(cells)}" if len(done) < len(cells) else str(len(cells))),
        ("points of the grid", str(len({cell.point for cell in cells}))),
        ("seeds", str(len(settings.seeds))),
        ("time in all cells", duration(sum(known[cell.name]["seconds"] for cell in done if cell.name in known))),
        ("code", code()),
    ]


def _costs(findings: Findings) -> Table | None:
    rows = []
    for point in findings.points:
        own = [findings.costs[name] for name in {f.cell.name for f in findings.found if f.cell.point == point}]
        up, down, seconds = (
            sum(getattr(c, key) for c in own) / len(own) for key in ("bytes_up", "bytes_down", "seconds")
        )
        spent = max((cost.epsilon for cost in own if cost.epsilon is not None), default=None)
        most = Box(GAP) if spent is None else Box(epsilon(spent), spent)
        worst = max((rho for cost in own for rho in cost.rho.values()), default=None)
        noisy = Box(GAP) if worst is None else Box(f"{worst:.2g}", worst)
        labels = [Box(label) for label in point]
        sizes = (Box(data_size(up), up), Box(data_size(down), down))
        rows.append([*labels, *sizes, Box(duration(seconds), seconds), most, noisy])
    axes = list(findings.settings.axes)
    heads = [*axes, "to the server", "to the sites", "time in rounds", "largest ε of a site", "largest ρ"]
    return table("costs-table", "What each point of the grid costs", heads, rows, len(axes))
