"""What `import appcadence` offers, and how much it costs."""

import ast
import importlib
import inspect
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import appcadence
import appcadence.features.extraction

ROOT = Path(__file__).resolve().parents[1]
FACE = [
    "AppcadenceError",
    "BundleError",
    "History",
    "SchemaError",
    "Scorer",
    "TelemetryError",
    "convert",
    "describe",
    "evaluate",
    "extract",
    "readiness",
    "save_bundle",
    "score_directory",
    "simulate",
    "train",
]


def test_the_face_is_these_names():
    assert appcadence.__all__ == FACE
    assert set(FACE) <= set(dir(appcadence))


@pytest.mark.parametrize("name", FACE)
def test_each_name_is_a_documented_class_or_function(name):
    value = getattr(appcadence, name)
    assert inspect.isclass(value) or inspect.isfunction(value)
    assert len(inspect.getdoc(value)) > 20 and value.__module__.startswith("appcadence.")


def test_type_checkers_see_what_is_imported():
    tree = ast.parse(Path(appcadence.__file__).read_text())
    (block, *_) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname or alias.name: (line.module, alias.name) for line in imports for alias in line.names}
    assert seen.keys() == {name for name in FACE if not name.endswith("Error")}
    for name, (module, attribute) in seen.items():
        assert getattr(appcadence, name) is getattr(importlib.import_module(module), attribute)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'score_all'"):
        _ = appcadence.score_all


def test_importing_the_package_alone_is_quick_and_loads_no_library():
    code = (
        "import sys, time; start = time.perf_counter(); import appcadence; "
        "took = time.perf_counter() - start; "
        "heavy = {'numpy', 'pandas', 'pyarrow', 'numba', 'typer', 'rich'} & set(sys.modules); "
        "sys.exit(str(heavy)) if heavy else print(took)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(5)]
    assert not [run.stderr for run in runs if run.returncode]
    assert min(float(run.stdout) for run in runs) < 0.1


def test_extract_is_the_function_and_hides_no_module():
    assert inspect.isfunction(appcadence.features.extract)
    assert appcadence.extract is appcadence.features.extract is appcadence.features.extraction.extract


def test_the_version_stands_in_one_place():
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert version("appcadence") == appcadence.__version__ == stated


def test_sources_that_are_not_installed_say_so(tmp_path):
    (tmp_path / "appcadence").symlink_to(ROOT / "src" / "appcadence")
    code = "import sys; sys.path.append(sys.argv[1]); import appcadence; print(appcadence.__version__)"
    alone = [sys.executable, "-I", "-S", "-c", code, tmp_path]
    assert subprocess.run(alone, capture_output=True, text=True).stdout == "0+unknown\n"
