"""The house rules: root links, the import rule, file sizes, and the page of what may be imported."""

import ast
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


def test_no_private_name_is_imported_across_files():
    """Modules that begin with an underscore may be imported inside the package, their private names never."""
    taken = []
    for file in (file for folder in ("src", "benchmarks") for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("appcadence"):
                place = ROOT.joinpath("src", *node.module.split("."))
                names = (n.name for n in node.names if n.name.startswith("_"))
                taken += [f"{file.name}: {n}" for n in names if not (place / f"{n}.py").exists()]
    assert not taken


def test_no_file_over_400_lines():
    files = [p for folder in ("src", "tests", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    assert not [p.name for p in files if len(p.read_text().splitlines()) > 400]


def test_every_module_that_may_be_imported_is_on_the_page_and_no_other():
    """Word for word, since the page is written from the docstrings: run `make docs`."""
    assert (ROOT / "docs" / "api.md").read_text() == runpy.run_path(str(ROOT / "docs" / "api.py"))["page"]()
