"""`make` with an unsuitable Python, and with a .venv that such a Python left behind."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAKE = """#!{python}
# A Python {version}: runs -c and -Ic as that, makes environments of itself, and notes what it is to run.
import pathlib, shutil, sys
here, (flag, what, *rest) = pathlib.Path(sys.argv[0]), sys.argv[1:]
with open("{log}", "a") as log:
    log.write(" ".join([flag, what, *rest]) + "\\n" if flag == "-m" else "")
if flag in ("-c", "-Ic"):
    sys.version_info = {version}
    sys.modules["pip"] = sys.modules["appcadence"] = sys
    exec(what)
elif what == "venv":
    shutil.rmtree(rest[-1], ignore_errors=True)
    (pathlib.Path(rest[-1]) / "bin").mkdir(parents=True)
    shutil.copy(here, pathlib.Path(rest[-1]) / "bin" / "python")
"""


@pytest.fixture
def checkout(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    (tmp_path / "programs").mkdir()
    (tmp_path / "requirements").mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements/use.txt", "requirements/dev.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def install(path, checkout, version):
    text = FAKE.format(python=sys.executable, version=version, log=checkout / "log")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def make(checkout, *arguments):
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    env["PATH"] = os.pathsep.join([str(checkout / "programs"), env["PATH"]])
    run = ["make", "-C", str(checkout), *arguments]
    return subprocess.run(run, capture_output=True, text=True, env=env, timeout=60)


def log(checkout):
    path = checkout / "log"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("left_behind", [None, (3, 9), "half"])
def test_an_old_python_is_named_and_nothing_is_made_with_it(checkout, left_behind):
    install(checkout / "programs" / "python3", checkout, (3, 9))
    if left_behind:
        install(checkout / ".venv" / "bin" / "python", checkout, (3, 9))
        (checkout / ".venv" / ".core").touch()
    if left_behind == "half":
        (checkout / ".venv" / "bin" / "python").unlink()
    done = make(checkout, ".venv/.core")
    assert done.returncode == 2 and not log(checkout)
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1 and "3.11 or newer" in said[0] and "python3 is 3.9" in said[0]
    assert "make PYTHON=" in said[0]


@pytest.mark.parametrize("left_behind", ["old", "vanished", "none"])
@pytest.mark.parametrize("goal", [".venv/.core", ".venv/.dev"])
def test_the_next_make_recovers(checkout, left_behind, goal):
    install(checkout / "programs" / "python3", checkout, (3, 12))
    if left_behind != "none":
        install(checkout / ".venv" / "bin" / "python", checkout, (3, 9))
        for stamp in (".core", ".dev"):
            (checkout / ".venv" / stamp).touch()
    if left_behind == "vanished":
        (checkout / ".venv" / "bin" / "python").unlink()
        (checkout / ".venv" / "bin" / "python").symlink_to("/nowhere/python3.10")
    done = make(checkout, goal)
    assert done.returncode == 0, done.stderr
    lock = "use" if goal == ".venv/.core" else "dev"
    assert log(checkout) == [
        "-m venv --clear .venv",
        f"-m pip install -q --require-hashes -r requirements/{lock}.txt",
        "-m pip install -q --no-build-isolation --no-deps -e .",
    ]
    again = make(checkout, goal)
    assert again.returncode == 0 and len(log(checkout)) == 3, "what is sound is left alone"


@pytest.mark.parametrize(("goal", "extras"), [(".venv/.core", "cli,train"), (".venv/.dev", "dev")])
def test_a_python_beyond_the_lock_takes_what_fits_it(checkout, goal, extras):
    install(checkout / "programs" / "python3", checkout, (3, 15))
    assert make(checkout, goal).returncode == 0
    assert log(checkout)[1:] == [f"-m pip install -q -e .[{extras}]"]


def test_another_python_may_be_named(checkout):
    install(checkout / "programs" / "python3", checkout, (3, 9))
    install(checkout / "programs" / "python3.13", checkout, (3, 13))
    done = make(checkout, ".venv/.core", "PYTHON=python3.13")
    assert done.returncode == 0 and len(log(checkout)) == 3
