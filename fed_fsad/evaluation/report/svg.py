"""Figures as inline SVG: text stays text, colours are the page's CSS variables, ids are unique in the page."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text

from fed_fsad.evaluation.report.sheet import Sheet

# Stand-ins that matplotlib can parse; each becomes the CSS variable of its name, so one SVG serves light and dark.
INK, MUTED, GRID, BAD = "#010101", "#020202", "#030303", "#040404"
SERIES = tuple(f"#0505{i:02x}" for i in range(8))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
GLYPHS = ("●", "■", "▲", "◆", "▼", "✚", "✖", "⬟")
_VARIABLES = {INK: "ink", MUTED: "muted", GRID: "grid", BAD: "bad"} | {c: f"series-{i}" for i, c in enumerate(SERIES)}
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


@dataclass(frozen=True)
class Key:
    """One entry of a legend: a series' name, its CSS class and its marker."""

    label: str
    css: str
    glyph: str


@dataclass(frozen=True)
class Chart:
    """A drawn figure. name: unique in the page; title: what it shows; svg: safe to put into a page as it is; sheet: the
    numbers in it; keys: its legend.
    """

    name: str
    title: str
    svg: Markup
    sheet: Sheet
    keys: tuple[Key, ...] = ()
    note: str = ""


def colour(index: int) -> str:
    """The colour of the index-th series."""
    return SERIES[index % len(SERIES)]


def marker(index: int) -> str:
    """Its marker: a series is never told apart by colour alone. Past eight series the markers shift."""
    return MARKERS[(index + index // len(SERIES)) % len(MARKERS)]


def keys(labels: Sequence[str], glyphs: Sequence[str] = ()) -> tuple[Key, ...]:
    """A legend for series in the order of `labels`; glyphs: instead of the series' own markers."""
    count = len(SERIES)
    own = glyphs or [GLYPHS[(i + i // count) % count] for i in range(len(labels))]
    return tuple(Key(text, f"series-{i % count}", own[i]) for i, text in enumerate(labels))


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A bare plot of width x height points, with hairlines and quiet labels."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GRID)
    axes.tick_params(length=0, labelsize=10, colors=MUTED, pad=6)
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def inline(figure: Figure, name: str, title: str) -> Markup:
    """The figure as an <svg> element. name: unique in the page, of letters, digits and dashes."""
    buffer = io.StringIO()
    FigureCanvasSVG(figure)
    for words in figure.findobj(Text):
        words.set_parse_math(False)  # a site called "a$b$" is a name, not a formula
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fed_fsad"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"<[^>]+>", lambda tag: _page_tag(tag[0], name), text)
    head = Markup('<svg role="img" aria-label="{}" ').format(title)
    return head + Markup(text.removeprefix("<svg"))


def _page_tag(tag: str, name: str) -> str:
    """One tag made fit for the page; text between tags is never touched."""
    tag = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", tag)
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    tag = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", tag)
    return re.sub(r"#0[0-9a-f]{5}", lambda stand_in: f"var(--{_VARIABLES[stand_in[0]]})", tag)
