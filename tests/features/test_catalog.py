"""The catalogue: names, directions, the page made from it, and what the command line prints of it."""

import runpy
from pathlib import Path

from typer.testing import CliRunner

from appcadence.cli import app
from appcadence.features import describe
from appcadence.features.catalog import FAMILIES, FEATURES, INPUTS_OF, NAMES

UNITS = {"s", "1/h", "bytes", "days", "ratio", "times", "count", "s/kB", "nats", "octaves", "decades"}
ROOT = Path(__file__).resolve().parents[2]


def test_features_are_declared_once_and_in_full():
    assert len(set(NAMES)) == len(NAMES) and len(FAMILIES) == 9
    for feature in FEATURES:
        assert feature.direction in (-1, 0, 1) and feature.meaning and feature.phrase
        assert feature.unit in UNITS
    known = {"flows", "activity", "notifications", "usage", "tasks", "inventory", "history"}
    assert all(needs and set(needs) <= known for needs in INPUTS_OF.values())


def test_the_page_has_a_line_for_every_feature():
    page = runpy.run_path(str(ROOT / "docs" / "features.py"))["page"]().splitlines()
    for feature in FEATURES:
        (line,) = (line for line in page if line.startswith(f"| `{feature.name}` |"))
        assert feature.meaning.replace("|", "\\|") in line and all(n in line for n in INPUTS_OF[feature.name])
    assert sum(line.startswith("## ") for line in page) == len(FAMILIES)


def test_the_command_lists_every_feature():
    done = CliRunner().invoke(app, ["features", "--describe"])
    assert done.exit_code == 0
    assert all(name in done.output for name in describe()["feature"])
