"""A compiled kernel is never older than what it was compiled from.

Numba's cache notices an edit of the file that holds a kernel, and of no other: so a kernel may use nothing
from outside of its own file but NumPy and `math`.
"""

import ast
import builtins
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "appcadence"
FILES = sorted(p for p in PACKAGE.rglob("*.py") if "numba" in p.read_text())
ALLOWED = {"np", "math", "numba", *dir(builtins)}


def is_kernel(node):
    return isinstance(node, ast.FunctionDef) and any(
        "jit" in ast.unparse(decorator) for decorator in node.decorator_list
    )


def names_used(node):
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def strangers(source):
    """Names that kernels take, at once or through a constant of their file, from another file."""
    tree = ast.parse(source)
    constants, functions = {}, {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        constants[name.id] = node.value
        elif isinstance(node, ast.FunctionDef):
            functions[node.name] = node
    found, seen = set(), set()

    def follow(node, local):
        for name in names_used(node) - local:
            if name in seen or name in ALLOWED:
                continue
            seen.add(name)
            if name in constants:
                follow(constants[name], set())
            elif name not in functions or not is_kernel(functions[name]):
                found.add(name)

    for function in functions.values():
        if is_kernel(function):
            stored = {
                n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
            }
            for statement in function.body:
                follow(statement, stored | {a.arg for a in function.args.args})
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.name)
def test_kernels_use_nothing_of_another_file(file):
    assert strangers(file.read_text()) == set()


def test_the_rule_sees_constants_and_calls_from_elsewhere():
    head = "from other import LIMIT, helper\nEDGE = 2 * LIMIT\n"
    source = head + "@_jit\ndef kernel(x):\n    return helper(x) + EDGE\n"
    assert strangers(source) == {"helper", "LIMIT"}


CODE = (
    "import numpy as np; from appcadence.features.families.interval import _mode;"
    "print(_mode(np.array([1.0, 1.1, 1.2, 9.0, 9.1]))[1])"
)


@pytest.mark.parametrize(
    "old, new",
    [("_BAND = 1.25 / 0.75", "_BAND = 1.01"), ("return at, best, twice", "return at, best + 7, twice")],
)
def test_an_edited_kernel_is_compiled_anew(tmp_path, old, new):
    """In a copy of the package with a cache of its own: once more, and then edited."""
    shutil.copytree(PACKAGE, tmp_path / "appcadence", ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def run():
        done = subprocess.run(
            [sys.executable, "-P", "-c", CODE], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    before = run()
    assert list((tmp_path / "cache").rglob("*interval._mode*.nbi")) and run() == before == 3
    file = tmp_path / "appcadence" / "features" / "families" / "interval.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert run() == (1 if "BAND" in old else before + 7)
