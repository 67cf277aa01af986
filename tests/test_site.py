"""The documentation site: generated pages are fresh, it builds without warnings, and it loads nothing."""

import json
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", ["commands", "features"])
def test_a_generated_page_is_not_stale(name):
    written = runpy.run_path(str(DOCS / f"{name}.py"))["page"]()
    assert (DOCS / f"{name}.md").read_text() == written, "run make docs"


class Loads(HTMLParser):
    """What a page loads by itself, and whether it has what would make the theme load more."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        of = dict(attrs)
        if tag == "link" and of.get("rel") in ("canonical", "next", "prev"):
            return
        loads = [of.get("src")] if tag != "link" else [of.get("href")]
        self.found += [one for one in [*loads, of.get("srcset"), of.get("poster")] if one]
        if "mermaid" in (of.get("class") or "").split() or of.get("data-md-component") == "source":
            self.found.append(f"https: what the theme loads for {tag}")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a warning ends the build."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "--strict", "-f", str(ROOT / "mkdocs.yml")]
    done = subprocess.run([*command, "-d", str(out)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return out


def test_the_site_holds_every_page(site):
    pages = {str(path.relative_to(site).with_suffix(".md")) for path in site.rglob("*.html")} - {"404.md"}
    assert pages == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}
    assert not list(site.rglob("*.py"))
    index = json.loads((site / "search" / "search_index.json").read_text())
    assert any("HTTPSCadenceAnomalyThreshold" in page["text"] for page in index["docs"])


def test_the_site_loads_nothing_from_elsewhere(site):
    for path in site.rglob("*.html"):
        page = Loads()
        page.feed(path.read_text())
        assert page.found and not [one for one in page.found if re.match(r"(\w+:)?//|https?:", one)], path
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", path.read_text()), path
