"""The report of a run: one HTML file that opens from disk, a pure function of the run directory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fed_fsad.durable import replace
from fed_fsad.evaluation.report.load import load_run
from fed_fsad.evaluation.report.page import context

__all__ = ["write_page", "write_report"]


def write_report(run: Path) -> Path:
    """Write `run`/report.html from what the run has left so far, finished or not, and return its path.

    A reader who has the old report open never sees half of the new one: it is put in place whole.
    Raises DataError when `run` is no run directory or when a file in it is damaged.
    """
    return write_page(run / "report.html", "template.html", context(load_run(run)))


def write_page(target: Path, template: str, page: Mapping[str, Any]) -> Path:
    """Fill a template of this folder with `page`, put it whole where `target` is, and return that."""
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    replace(target, templates.get_template(template).render(page).encode())
    return target
