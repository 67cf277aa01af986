"""The house: root links, the import rule, file sizes, and the page of what may be imported."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("room", ["telemetry", "features", "models", "training", "serving", "triage"])
def test_root_links_lead_into_the_package(room):
    link = ROOT / room
    assert link.is_symlink() and link.readlink() == Path("src/appcadence") / room and link.is_dir()


def test_imports_go_one_way():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_no_file_over_400_lines():
    files = [p for folder in ("src", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    assert not [p.name for p in files if len(p.read_text().splitlines()) > 400]


def test_every_module_that_may_be_imported_is_on_the_page_and_no_other():
    """Word for word, since the page is written from the docstrings: run `make docs`."""
    assert (ROOT / "docs" / "api.md").read_text() == runpy.run_path(str(ROOT / "docs" / "api.py"))["page"]()
