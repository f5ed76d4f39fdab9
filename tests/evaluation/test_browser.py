"""The report in a real browser, opened from disk: nothing is loaded, everything is drawn, readable and printable."""

import itertools
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fed_fsad.evaluation.report import write_report
from tests.evaluation.fake_run import fake_run
from tests.evaluation.reading import SECTIONS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
A4_CONTENT = (round(184 / 25.4 * 96), round(267 / 25.4 * 96))
"""Width and height in CSS pixels of what the page's margins leave of A4."""
LAPTOP: Any = {"width": 1280, "height": 800}
OVERFLOWING = """() => [...document.querySelectorAll("body *")].filter(e => {
  const box = e.getBoundingClientRect();
  return box.width && !e.closest("svg, .skip") && (box.right > innerWidth + 1 || box.left < -1);
}).map(e => e.tagName + "." + e.className + " " + (e.textContent || "").slice(0, 40))"""
CLIPPED = """() => [...document.querySelectorAll("main svg")].flatMap(svg => {
  const outer = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")].filter(text => {
    const box = text.getBoundingClientRect(), slack = svg.closest(".drawn") ? 30 : 3;
    return box.width && (box.left < outer.left - slack || box.right > outer.right + slack
      || box.top < outer.top - slack || box.bottom > outer.bottom + slack);
  }).map(text => text.textContent);
})"""
EMPTY = """() => [...document.querySelectorAll("figure.plot")].filter(figure =>
  ![...figure.querySelectorAll("svg path, svg use")].some(e => {
    const ink = getComputedStyle(e), box = e.getBoundingClientRect();
    return (ink.stroke !== "none" || ink.fill !== "none") && box.width * box.height > 4;
  }) || figure.querySelectorAll("svg text").length < 3).map(figure => figure.textContent)"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(fake_run(tmp_path_factory.mktemp("runs") / "demo"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


def open_report(browser: Any, report: Path, scheme: str) -> Any:
    """The report on a laptop's screen, with all that the browser complained of or asked for."""
    opened = browser.new_page(viewport=LAPTOP, color_scheme=scheme)
    opened.complaints, opened.asked = [], []
    opened.on("console", lambda message: opened.complaints.append(message.text))
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("request", lambda asked: opened.asked.append(asked.url))
    opened.goto(report.as_uri())
    return opened


@pytest.fixture(scope="module")
def light(browser: Any, report: Path) -> Any:
    return open_report(browser, report, "light")


@pytest.fixture(scope="module")
def dark(browser: Any, report: Path) -> Any:
    return open_report(browser, report, "dark")


@pytest.fixture
def page(light: Any) -> Iterator[Any]:
    """The light one, which a test may resize or print."""
    yield light
    light.emulate_media(media="screen")
    light.set_viewport_size(LAPTOP)


@pytest.fixture(params=["light", "dark"])
def either(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def test_it_opens_without_a_complaint_and_asks_for_nothing(either: Any, report: Path) -> None:
    either.evaluate("Promise.all([...document.images].map(image => image.decode()))")
    assert either.complaints == []
    assert [url for url in either.asked if not url.startswith("data:")] == [report.as_uri()]


def test_every_section_shows_something(page: Any) -> None:
    for name in SECTIONS:
        box = page.locator(f"section#{name}").bounding_box()
        assert box["height"] > 120, name
        assert len(page.locator(f"section#{name}").inner_text()) > 60, name


def test_plots_are_drawn_and_no_label_is_cut_off(page: Any) -> None:
    assert page.locator("figure.plot").count() >= 14
    assert page.evaluate(EMPTY) == []
    assert page.evaluate(CLIPPED) == []


def test_numbers_in_plots_can_be_selected(page: Any) -> None:
    page.evaluate("""() => getSelection().selectAllChildren(document.querySelector("figure.plot svg"))""")
    assert re.search(r"0\.[2468]", page.evaluate("getSelection().toString()"))


def test_the_forest_plot_draws_what_the_row_says(page: Any) -> None:
    """A dot lies on the axis where its figure is: two ticks give the scale."""
    ticks = [(t.bounding_box(), t.text_content()) for t in page.locator(".forest").first.locator(".axis text").all()]
    (left, low), (right, high) = ticks[0], ticks[-2]
    scale = (float(high) - float(low)) / ((right["x"] + right["width"] / 2) - (left["x"] + left["width"] / 2))
    rows = page.locator(".forest").first.locator("tbody tr:not(.group)").all()
    assert len(rows) == 12
    for row in rows:
        dot = row.locator("circle").bounding_box()
        at = float(low) + scale * (dot["x"] + dot["width"] / 2 - left["x"] - left["width"] / 2)
        assert at == pytest.approx(float(row.locator("td.n b").first.inner_text()), abs=0.004)


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out_of_the_screen(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("scheme", "rules"),
    [
        ("light", {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}),
        ("dark", {"type": "rule", "values": ["color-contrast"]}),
    ],
)
def test_the_accessibility_check_finds_nothing(
    request: pytest.FixtureRequest, scheme: str, rules: dict[str, Any]
) -> None:
    """axe-core: WCAG 2.1 AA in light, and in dark what another scheme can change; the configuration is unfolded."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = request.getfixturevalue(scheme)
    page.evaluate("document.querySelectorAll('details').forEach(x => x.open = true)")
    found = axe.Axe().run(page, options={"runOnly": rules, "resultTypes": ["violations"]})
    broken = [(x["id"], x["nodes"][0]["html"][:200]) for x in found.response["violations"]]
    assert broken == []
    assert "color-contrast" in {x["id"] for x in found.response["passes"]}


def test_lines_stand_out_from_their_card(either: Any) -> None:
    """Graphics need 3 : 1, text in a series' colour is never used alone; axe does not look into drawings."""
    for name in [f"series-{i}" for i in range(8)] + ["bad", "muted"]:
        assert contrast(colour(either, name), colour(either, "card")) >= 3, name


def test_the_keyboard_reaches_everything_in_the_order_of_the_page(browser: Any, report: Path) -> None:
    page = open_report(browser, report, "light")
    focusable = page.evaluate("""() => [...document.querySelectorAll("a[href], summary, [tabindex='0']")]
      .filter(e => !e.closest("details:not([open]) > :not(summary)")).length""")
    seen, tops = [], []
    for _ in range(focusable):
        page.keyboard.press("Tab")
        name, top, ring = page.evaluate("""() => { const e = document.activeElement; return [
          e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.textContent.trim(),
          e.matches(".skip, nav a") ? -1 : Math.round(e.getBoundingClientRect().top + scrollY),
          getComputedStyle(e).outlineStyle] }""")
        assert ring != "none", name
        seen.append(name)
        tops.append(top)
    assert seen[0] == "Skip to the answer"
    assert len(seen) == focusable
    assert [name for name in seen if seen.count(name) > 1] == []
    below = [top for top in tops if top >= 0]
    assert all(second >= first - 40 for first, second in itertools.pairwise(below))


def test_a_plot_is_saved_as_csv(page: Any) -> None:
    with page.expect_download() as saved:
        page.locator("a[download='roc-0-0.csv']").click()
    text = Path(saved.value.path()).read_text(encoding="utf-8")
    assert saved.value.suggested_filename == "roc-0-0.csv"
    assert text.startswith("curve,false positive rate,true positive rate\n2,0.0,0.0\n")


def test_it_prints_on_a4_with_nothing_cut_off(page: Any) -> None:
    page.emulate_media(media="print")
    page.set_viewport_size({"width": A4_CONTENT[0], "height": A4_CONTENT[1]})
    assert page.evaluate("document.documentElement.scrollWidth") <= A4_CONTENT[0]
    assert page.evaluate(OVERFLOWING) == []
    assert page.evaluate(CLIPPED) == []
    whole = [box["height"] for box in (x.bounding_box() for x in page.locator(".plot, .case, .forest, .card").all())]
    assert max(whole) < A4_CONTENT[1], "what may not be broken must fit a page"
    printed = page.pdf(prefer_css_page_size=True)
    sheets = re.findall(rb"/MediaBox \[([\d. ]+)\]", printed)
    assert 4 <= len(sheets) <= 14
    assert {tuple(round(float(x) / 72 * 25.4) for x in sheet.split()) for sheet in sheets} == {(0, 0, 210, 297)}


def colour(page: Any, name: str) -> tuple[float, ...]:
    """A CSS variable of the page as red, green and blue in [0, 1]."""
    text = page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}')").strip()
    return tuple(int(text[i : i + 2], 16) / 255 for i in (1, 3, 5))


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """WCAG 2.1's contrast ratio."""
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(rgb: tuple[float, ...]) -> float:
    """WCAG 2.1's relative luminance."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
