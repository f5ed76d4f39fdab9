"""Who took part and what travelled, drawn. None is returned where there is nothing to draw."""

import numpy as np

from fed_fsad.evaluation.report import svg
from fed_fsad.evaluation.report.charts import HEIGHT, WIDTH, round_axis
from fed_fsad.evaluation.report.lines import SiteLine
from fed_fsad.evaluation.report.load import Run
from fed_fsad.evaluation.report.sheet import sheet
from fed_fsad.evaluation.report.svg import BAD, MUTED, Chart, colour
from fed_fsad.evaluation.report.words import data_size

STATUSES = {
    "ok": ("o", colour(0), "took part", "series-0", "●"),
    "rejected": ("X", BAD, "reply rejected", "bad", "✖"),
    "refused": ("D", colour(1), "refused by its policy", "series-1", "◆"),
    "budget_spent": ("s", colour(1), "privacy budget spent", "series-1", "■"),
    "error": ("v", BAD, "error", "bad", "▼"),
    "no reply": ("_", MUTED, "no reply", "muted", "–"),
}


def traffic(run: Run, name: str) -> Chart | None:
    """Bytes per round and direction."""
    if not run.rounds:
        return None
    figure, axes = svg.canvas(WIDTH, HEIGHT)
    rounds = np.array([line.round for line in run.rounds])
    amounts = ([line.bytes_down for line in run.rounds], [line.bytes_up for line in run.rounds])
    for i, values in enumerate(amounts):
        axes.bar(rounds + (i - 0.5) * 0.36, values, 0.34, color=colour(i), alpha=(1, 0.75)[i])
    axes.yaxis.set_major_formatter(lambda value, _: data_size(value))
    round_axis(axes)
    axes.set_ylim(bottom=0)
    title = "Bytes per round and direction"
    rows = [(line.round, line.bytes_down, line.bytes_up) for line in run.rounds]
    numbers = sheet(("round", "bytes to the sites", "bytes to the server"), rows)
    keys = svg.keys(("to the sites", "to the server"), ("■", "■"))
    return Chart(name, title, svg.inline(figure, name, title), numbers, keys)


def attendance(run: Run, name: str) -> Chart | None:
    """Which site took part in which round, and how it failed where it did."""
    if not run.site_rounds:
        return None
    sites = run.sites[::-1]
    rounds = sorted({line.round for line in run.site_rounds})
    figure, axes = svg.canvas(WIDTH, max(HEIGHT, 60 + 26 * len(sites)))
    for status, (shape, ink, *_) in STATUSES.items():
        lines = [line for line in run.site_rounds if _status(line) == status]
        axes.plot([x.round for x in lines], [sites.index(x.site) for x in lines], shape, color=ink, markersize=7)
    axes.set_yticks(range(len(sites)), sites)
    axes.set(ylim=(-0.7, len(sites) - 0.3), xlim=(rounds[0] - 0.6, rounds[-1] + 0.6))
    round_axis(axes)
    seen = {_status(line) for line in run.site_rounds}
    legend = tuple(svg.Key(words, css, glyph) for key, (_, _, words, css, glyph) in STATUSES.items() if key in seen)
    title = "Who took part in which round"
    rows = [(line.round, line.site, line.status, line.reason) for line in run.site_rounds]
    numbers = sheet(("round", "site", "status", "reason"), rows)
    return Chart(name, title, svg.inline(figure, name, title), numbers, legend)


def _status(line: SiteLine) -> str:
    """The line's status if it has a mark of its own; every other word means that something went wrong."""
    return line.status if line.status in STATUSES else "error"
