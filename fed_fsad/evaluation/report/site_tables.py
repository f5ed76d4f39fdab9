"""Tables about the sites: what each did and spent, what went wrong, every round, the ledger."""

from typing import Any

from fed_fsad.evaluation.report.charts import stated_budget
from fed_fsad.evaluation.report.lines import Account, SiteEvaluationLine, SiteLine
from fed_fsad.evaluation.report.load import Run
from fed_fsad.evaluation.report.records import SiteSummary
from fed_fsad.evaluation.report.table import Cell, Table, table
from fed_fsad.evaluation.report.words import (
    GAP,
    amount,
    data_size,
    duration,
    epsilon,
    interval,
    method_title,
    plain,
    score,
    small,
)


def sites(run: Run) -> Table | None:
    """What each site did, sent, spent and would reach alone; columns that nobody has a value for are left out."""
    rows = [_site(run, name) for name in run.sites]
    places = range(len(rows[0])) if rows else range(0)
    kept = [i for i in places if i < 3 or any(row[i][1].text != GAP for row in rows)]
    columns = [rows[0][i][0] for i in kept]
    return table("sites", "The sites", columns, [[row[i][1] for i in kept] for row in rows])


def _site(run: Run, name: str) -> list[tuple[str, Cell]]:
    """Column and cell of one site; the same columns for every site."""
    lines = [line for line in run.site_rounds if line.site == name]
    bad = [line for line in lines if line.status != "ok"]
    found = run.summary.sites.get(name) if run.summary else None
    done, failed = (found.rounds, found.failures) if found else (len(lines) - len(bad), len(bad))
    up = [line.bytes_up for line in lines if line.bytes_up is not None]
    down = [line.bytes_down for line in lines if line.bytes_down is not None]
    seconds = [line.seconds for line in lines if line.seconds is not None]
    role = next((line.role for line in reversed(lines) if line.role != "train"), "")
    standing = ", ".join(
        filter(None, (plain(role), "suspended" if any(x.site == name for x in run.suspensions) else ""))
    )
    eps, guarantee = spent(run, name)
    return [
        ("site", Cell(name, note=standing)),
        ("rounds", Cell(str(done), done)),
        ("failures", Cell(str(failed), failed)),
        ("examples", _examples(found, lines)),
        ("received", _total(down)),
        ("sent", _total(up)),
        ("time", Cell(duration(sum(seconds)), sum(seconds)) if seconds else Cell(GAP)),
        ("ε spent", Cell(epsilon(eps) if eps is not None else "no DP", eps, guarantee)),
        *_own_figures(run, name),
        *_alone(run, name, found),
    ]


def _examples(found: SiteSummary | None, lines: list[SiteLine]) -> Cell:
    told = [x.examples for line in lines for x in line.methods.values() if x.examples is not None]
    count = found.examples if found else max(told, default=None)
    return Cell(GAP if count is None else f"{count:,}", count)


def _total(counts: list[int]) -> Cell:
    return Cell(data_size(sum(counts)), sum(counts)) if counts else Cell(GAP)


def _own_figures(run: Run, name: str) -> list[tuple[str, Cell]]:
    """The headline of the site's latest evaluation on its own images, where its policy released one."""
    cells = []
    for method in sorted({line.method for line in run.site_evaluations}):
        own = [line for line in run.site_evaluations if (line.site, line.method) == (name, method)]
        told = own[-1] if own else None
        words = [] if told is None or told.interval is None else [interval(told.interval)]
        words += [] if told is None or told.images is None else [amount(told.images, "image")]
        value = None if told is None else told.headline
        cells.append((f"{method_title(method)}, on its own images", Cell(score(value), value, ", ".join(words))))
        if any(line.personal is not None for line in run.site_evaluations if line.method == method):
            cells.append((f"{method_title(method)}, its personal model", _personal(told)))
    return cells


def _personal(told: SiteEvaluationLine | None) -> Cell:
    """What a model of the site's own says of the same images."""
    if told is None or told.personal is None:
        return Cell(GAP)
    low, high = told.personal_low, told.personal_high
    return Cell(score(told.personal), told.personal, "" if low is None or high is None else interval((low, high)))


def _alone(run: Run, name: str, found: SiteSummary | None) -> list[tuple[str, Cell]]:
    """The headline, on the server's images, of a model trained at this site only."""
    known = {line.method: line.headline for line in run.arms if line.site == name} | (found.local if found else {})
    everywhere = {line.method for line in run.arms if line.site} | {
        method for site in (run.summary.sites.values() if run.summary else ()) for method in site.local
    }
    return [
        (f"{method_title(method)}, trained alone", Cell(score(known.get(method)), known.get(method)))
        for method in sorted(everywhere)
    ]


def spent(run: Run, site: str) -> tuple[float | None, str]:
    """ε of a site and what it is about: the most any source says, for a ledger is charged before a reply leaves."""
    told = [line for line in run.site_rounds if line.site == site and line.epsilon is not None][-1:]
    known: list[Account | SiteLine | SiteSummary] = [*told]
    known += [run.accounts[site]] if site in run.accounts else []
    known += [run.summary.sites[site]] if run.summary and site in run.summary.sites else []
    eps = [source.epsilon for source in known if source.epsilon is not None]
    delta = next((source.delta for source in known if source.delta is not None), None)
    unit = next((source.unit for source in known if source.unit), "record")
    return (max(eps), f"δ = {small(delta)}, per {unit}") if eps else (None, "")


def failures(run: Run) -> Table | None:
    """Every round in which a site's reply did not count, and why."""
    rows = [
        [
            Cell(f"{line.round}", line.round), Cell(line.site), Cell(plain(line.status), line.status),
            Cell(line.reason or GAP),
        ]
        for line in run.site_rounds
        if line.status != "ok"
    ]  # fmt: skip
    rows += [
        [Cell(f"{line.round}", line.round), Cell(site), Cell("rejected"), Cell(reason)]
        for line in run.rounds
        for site, reason in line.rejected.items()
        if not any(x.round == line.round and x.site == site and x.status != "ok" for x in run.site_rounds)
    ]
    rows += [[Cell(f"{x.round}", x.round), Cell(x.site), Cell("suspended"), Cell(x.reason)] for x in run.suspensions]
    return table("failures", "Replies that did not count", ("round", "site", "what happened", "reason"), rows, 4)


def rounds(run: Run) -> Table | None:
    """Every round: replies, time and bytes."""
    rows = [
        [
            Cell(f"{x.round}", x.round, f"attempt {x.attempt}" if x.attempt > 1 else ""),
            Cell(f"{x.replies}", x.replies), Cell(duration(x.seconds), x.seconds),
            Cell(data_size(x.bytes_down), x.bytes_down), Cell(data_size(x.bytes_up), x.bytes_up),
        ]
        for x in run.rounds
    ]  # fmt: skip
    return table("rounds", "Every round", ("round", "valid replies", "time", "to the sites", "to the server"), rows)


def accounts(run: Run) -> Table | None:
    """What every site under differential privacy has spent, of what, in how many releases."""
    rows = []
    for site in run.sites:
        eps, guarantee = spent(run, site)
        if eps is None:
            continue
        budget = stated_budget(run, site)
        charges = run.accounts[site].charges if site in run.accounts else ()
        releases = sum(charge.releases or 0 for charge in charges)
        noise = sorted({charge.sigma for charge in charges if charge.sigma is not None})
        rows.append([
            Cell(site), Cell(epsilon(eps), eps, guarantee),
            Cell("not told" if budget is None else f"{budget:g}", budget),
            Cell(str(releases) if releases else GAP, releases or None),
            Cell(" to ".join(f"{x:.2f}" for x in dict.fromkeys((noise[0], noise[-1]))) if noise else GAP),
        ])  # fmt: skip
    columns = ("site", "ε spent", "budget", "releases", "noise multiplier σ")
    return table("accounts", "The account of each site", columns, rows)


def holdings(run: Run) -> Table | None:
    """What each simulated hospital holds, as the config says; real ones do not say."""
    rows = [
        [Cell(str(found["name"])), *(_held(found["holds"], key) for key in ("organs", "share", "normal", "abnormal"))]
        for found in run.hospitals
        if isinstance(found.get("holds"), dict)
    ]
    columns = ("hospital", "tasks", "share of the set", "normal, per task", "abnormal, per task")
    kept = [i for i in range(len(columns)) if i == 0 or any(row[i].text != GAP for row in rows)]
    return table(
        "holdings", "What the hospitals hold", [columns[i] for i in kept], [[r[i] for i in kept] for r in rows], 2
    )


def _held(holds: dict[str, Any], key: str) -> Cell:
    value = holds.get(key)
    if isinstance(value, list):
        return Cell(", ".join(plain(str(x)) for x in value))
    return Cell(GAP) if value is None else Cell(str(value))
