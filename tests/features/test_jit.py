"""A compiled kernel is never older than what it was compiled from.

Numba's cache notices an edit of the file that holds a kernel, and of no other. Ours notices an edit of the
shared files too, so a kernel may use its own file, those, NumPy and `math`, and nothing else.
"""

import ast
import builtins
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "appcadence"
KERNELS = PACKAGE / "features" / "_kernels.py"
SHARED = {"appcadence._types", "appcadence.features._kernels", "appcadence.features._cadence"}
ALLOWED = {"np", "math", "numba", *dir(builtins)}


def compiles(decorator):
    return {"kernel", "compiled"} & {
        n.id if isinstance(n, ast.Name) else n.attr
        for n in ast.walk(decorator)
        if isinstance(n, ast.Name | ast.Attribute)
    }


def kernels(tree, name):
    """The functions that are compiled by `kernel` or by `compiled`."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [f for f in functions if any(name in compiles(decorator) for decorator in f.decorator_list)]


FILES = [p for p in sorted(PACKAGE.rglob("*.py")) if kernels(ast.parse(p.read_text()), "kernel")]
ALONE = [p for p in sorted(PACKAGE.rglob("*.py")) if kernels(ast.parse(p.read_text()), "compiled")]


def names(node, context):
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, context)}


def strangers(source, name="kernel", shared=frozenset(SHARED)):
    """Names that kernels take, at once or by a constant of their file, from files that are not shared."""
    tree = ast.parse(source)
    mine = {function.name for function in kernels(tree, name)}
    constants, known = {}, ALLOWED | mine
    for node in tree.body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                constants |= dict.fromkeys(names(target, ast.Store), node.value)
        elif isinstance(node, ast.ImportFrom) and node.module in shared:
            known |= {alias.asname or alias.name for alias in node.names}
    found, seen = set(), set()

    def follow(node, local):
        for used in names(node, ast.Load) - names(node, ast.Store) - local - known - seen:
            seen.add(used)
            if used in constants:
                follow(constants[used], set())
            else:
                found.add(used)

    for function in kernels(tree, name):
        stored = names(function, ast.Store)
        for statement in function.body:
            follow(statement, stored | {a.arg for a in function.args.args})
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda p: p.name)
def test_kernels_use_their_own_file_and_the_shared_ones(file):
    assert strangers(file.read_text()) == set()


@pytest.mark.parametrize("file", ALONE, ids=lambda p: p.name)
def test_what_is_cached_by_its_own_file_alone_uses_nothing_of_another(file):
    assert strangers(file.read_text(), "compiled", set()) == set()


def test_the_shared_files_take_nothing_from_others():
    for name in SHARED:
        path = PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py")
        imports = [n.module for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)]
        assert not {m for m in imports if m.startswith("appcadence")} - SHARED - {"appcadence._compiled"}


def test_the_rule_sees_constants_and_calls_from_elsewhere():
    head = "from appcadence.features._kernels import sort\n"
    head += "from other import LIMIT, helper\nEDGE = 2 * LIMIT\n"
    source = head + "@kernel\ndef f(x):\n    return helper(sort(x)) + EDGE\n"
    assert strangers(source) == {"helper", "LIMIT"}
    assert strangers(source, shared=set()) == {"helper", "LIMIT", "sort"}
    assert strangers(source.replace("@kernel", "@partial(kernel, fastmath=True)")) == {"helper", "LIMIT"}


CODE = """
import json, numpy as np
from appcadence.features.families import interaction, interval
found = {
    "quantiles": interaction._quantiles(np.array([3.0, 1.0, 2.0, 9.0]))[0],
    "mode": interval._mode(np.array([1.0, 1.1, 1.2, 9.0, 9.1]))[1],
    "reused": sum(sum(f.stats.cache_hits.values()) for f in (interaction._quantiles, interval._mode)),
}
print(json.dumps(found))
"""
FRESH = {"quantiles": 2.5, "mode": 3, "reused": 2}


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the package that has run once with a cache of its own, and what runs it again."""
    place = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, place / "appcadence", ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"PYTHONPATH": str(place), "NUMBA_CACHE_DIR": str(place / "cache")}

    def run():
        done = subprocess.run(
            [sys.executable, "-P", "-c", CODE], env=environment, cwd=place, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    assert run() == FRESH | {"reused": 0}
    return place, run


def test_unchanged_kernels_are_not_compiled_again(copied):
    place, run = copied
    files = {p: p.stat().st_mtime_ns for p in (place / "cache").rglob("*.nb?")}
    assert run() == FRESH
    assert files == {p: p.stat().st_mtime_ns for p in (place / "cache").rglob("*.nb?")}


@pytest.mark.parametrize(
    "file, old, new, found",
    [
        ("families/interval.py", "_BAND = 1.25 / 0.75", "_BAND = 1.01", {"mode": 1, "reused": 1}),
        ("families/interval.py", "return at, best, ", "return at, best + 7, ", {"mode": 10, "reused": 1}),
        ("_kernels.py", "return 0.5 * (ordered", "return 5.0 * (ordered", {"quantiles": 25.0, "reused": 0}),
        ("_kernels.py", "_FEW = 32", "_FEW = 2", {"reused": 0}),
        ("../_types.py", "HOUR_US = ", "HOUR_US = 0 + ", {"reused": 0}),
    ],
)
def test_an_edited_kernel_or_helper_is_compiled_anew(copied, file, old, new, found):
    place, run = copied
    file = place / "appcadence" / "features" / file
    text = file.read_text()
    assert old in text
    try:
        file.write_text(text.replace(old, new))
        assert run() == FRESH | found
    finally:
        file.write_text(text)
