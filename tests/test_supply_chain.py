"""The lock files: every package for the README's commands and the checks, by hash, from no named host."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def named(*extras):
    """Requirements of the project with extras, and of extras that these name."""
    found = [Requirement(text) for text in PROJECT["dependencies"]]
    for extra in extras:
        for text in PROJECT["optional-dependencies"][extra]:
            need = Requirement(text)
            found += named(*need.extras) if need.name == "appcadence" else [need]
    return found


@pytest.mark.parametrize(("file", "extras"), [("use", ["cli", "train"]), ("dev", ["dev"])])
def test_every_package_is_locked_by_hash_within_its_bounds_and_no_host_is_named(file, extras):
    text = (ROOT / f"requirements/{file}.txt").read_text()
    assert not re.search(r"(?i)[a-z]+://|index-url|find-links|trusted-host| @ ", text)
    entries = re.split(r"\n(?=[a-zA-Z0-9])", re.sub(r"(?m)^\s*#.*\n", "", text))
    locked = {}
    for entry in entries:
        head = re.match(r"([A-Za-z0-9._-]+)(?:\[.*?\])?==([^\s;\\]+)", entry)
        assert head, entry[:80]
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), entry[:80]
        locked.setdefault(canonicalize_name(head[1]), []).append(head[2])
    for need in named(*extras):
        versions = locked[canonicalize_name(need.name)]
        assert all(need.specifier.contains(version) for version in versions), need
