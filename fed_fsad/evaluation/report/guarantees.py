"""Who promises what: every site in its own words, and the hospital level beside them, never added to them."""

from fed_fsad.evaluation.report.load import Run
from fed_fsad.evaluation.report.table import Cell, Table, table
from fed_fsad.evaluation.report.words import GAP, epsilon, small


def promises(run: Run) -> dict[str, str]:
    """What each site guarantees: as summed up, else what it said last; a site that said nothing is missing."""
    said = {line.site: line.claim for line in run.site_rounds if line.claim}
    sites = run.summary.sites.items() if run.summary else ()
    summed = {name: found for name, site in sites if (found := site.guarantee or site.claim)}
    return dict(sorted((said | summed).items()))


def hospital_level(run: Run) -> Table | None:
    """The server's own account, round by round."""
    rows = [
        [
            Cell(f"{line.round}", line.round),
            Cell(epsilon(line.epsilon), line.epsilon, f"δ = {small(line.delta)}, per hospital"),
            Cell(GAP if line.budget is None else f"{line.budget:g}", line.budget),
            Cell(GAP if line.sigma is None else f"{line.sigma:.2f}", line.sigma),
            Cell(GAP if line.clip_norm is None else f"{line.clip_norm:.3g}", line.clip_norm),
            Cell(GAP if line.cohort is None else str(line.cohort), line.cohort),
        ]
        for line in run.hospital_level
    ]
    columns = ("round", "ε spent", "budget", "noise multiplier σ", "clip norm C", "cohort")
    return table("hospital-level", "The account of the hospital level", columns, rows)


def hospital_claim(run: Run) -> str | None:
    """The hospital-level guarantee after its last round, or None."""
    return next((line.claim for line in reversed(run.hospital_level) if line.claim), None)
