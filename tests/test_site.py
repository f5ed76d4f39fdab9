"""The documentation site: built without a warning, whole, and readable without a network."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = sorted(path.stem for path in (REPOSITORY / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`make docs`, into another folder; --strict makes a broken link an error."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_every_page_is_built_and_in_the_menu(site: Path) -> None:
    menu = (site / "index.html").read_text(encoding="utf-8")
    for name in PAGES:
        assert (site / f"{name}.html").is_file()
        assert f'href="{name}.html"' in menu or name == "index", name


@pytest.mark.slow
def test_nothing_is_loaded_from_the_network(site: Path) -> None:
    for page in site.glob("*.html"):
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:link|script|img|iframe)\b[^>]*\b(?:href|src)=\"?(https?:[^\"\s>]+)", html)
        assert loaded == [], f"{page.name} loads {loaded}"


def test_the_menu_names_every_page_once() -> None:
    nav = (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named = yaml.safe_load("nav:" + nav)["nav"]
    found = [page for entry in named for page in ([entry] if isinstance(entry, str) else next(iter(entry.values())))]
    assert sorted(found) == sorted(f"{name}.md" for name in PAGES)
