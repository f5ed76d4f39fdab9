"""A report as a reader's browser sees it: parsed back from HTML."""

import csv
import io
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

from fed_fsad.evaluation.report import write_report

SECTIONS = ("answer", "detection", "gallery", "signs", "rounds", "sites", "privacy", "warnings", "setup")
VOID = {"meta", "img", "br", "link"}


@dataclass
class Page(HTMLParser):
    """Every tag with its attributes, all visible text, and what stands open at the end."""

    html: str
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] for _, attrs in self.tags if attribute in attrs]

    def sheet(self, name: str) -> list[list[str]]:
        """The rows of the CSV file that a link of the page holds."""
        link = next(attrs["href"] for tag, attrs in self.tags if tag == "a" and attrs.get("download") == f"{name}.csv")
        return list(csv.reader(io.StringIO(unquote(link.removeprefix("data:text/csv;charset=utf-8,")))))


def read(run: Path) -> Page:
    """The report of a run, written anew."""
    written = write_report(run)
    assert written == run / "report.html"
    return Page(written.read_text("utf-8"))
