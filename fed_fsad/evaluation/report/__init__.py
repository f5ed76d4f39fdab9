"""The report of a run: one HTML file that opens from disk, a pure function of the run directory."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fed_fsad.durable import replace
from fed_fsad.evaluation.report.load import load_run
from fed_fsad.evaluation.report.page import context

__all__ = ["write_report"]


def write_report(run: Path) -> Path:
    """Write `run`/report.html from what the run has left so far, finished or not, and return its path.

    A reader who has the old report open never sees half of the new one: it is put in place whole.
    Raises DataError when `run` is no run directory or when a file in it is damaged.
    """
    page = context(load_run(run))
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    target = run / "report.html"
    replace(target, templates.get_template("template.html").render(page).encode())
    return target
