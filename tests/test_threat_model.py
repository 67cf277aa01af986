"""Each promise of the threat model names a test, and that test exists."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_that_the_threat_model_names_is_there():
    text = (ROOT / "docs/threat-model.md").read_text()
    rows = text.partition("## The promises")[2].partition("\n## ")[0].splitlines()
    promises = [row for row in rows if row.startswith("| ")][1:]
    assert len(promises) >= 19
    for row in promises:
        found = re.search(r"`(tests/[a-z_/]+\.py)::(test_\w+)`", row)
        assert found, f"no test: {row}"
        tree = ast.parse((ROOT / found[1]).read_text())
        assert found[2] in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, row
