"""A user who only scores installs five packages; training, the command line and Spark add their own."""

import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import scorer_alone
from make import fleet

from appcadence import Scorer
from appcadence.telemetry.directory import write_directory

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(scorer_alone.__file__)


@pytest.fixture(scope="module")
def trained(fleet_model, tmp_path_factory):
    """Paths of a telemetry directory and a model, and the scores that they give here."""
    place = tmp_path_factory.mktemp("alone")
    tables = fleet(devices=5, days=3)
    write_directory(place / "telemetry", tables)
    return place / "telemetry", fleet_model, Scorer.load(fleet_model).score(tables)["score"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that a release would have: built from the source archive, not from this directory."""
    place = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--outdir", place, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (found,) = place.glob("*.whl")
    return found


def test_a_scorer_runs_where_the_optional_packages_cannot_be_imported(trained, tmp_path):
    telemetry, model, scores = trained
    out = tmp_path / "scores.parquet"
    subprocess.run([sys.executable, SCRIPT, telemetry, model, out, "--hide"], check=True, cwd=tmp_path)
    assert pd.read_parquet(out)["score"].equals(scores)


def test_without_its_packages_the_command_says_in_one_sentence_what_to_install():
    code = (
        "import sys; sys.modules.update(typer=None, rich=None); from appcadence.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("appcadence: typer and rich not found; install") and "[cli]" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_the_command_line_scores_and_reports_without_what_training_installs(trained, tmp_path):
    telemetry, model, scores = trained
    hidden = scorer_alone.OPTIONAL - {"jinja2", "pydantic", "rich", "typer"}  # typer takes pydantic
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(hidden)})); "
        "from appcadence.__main__ import main; main()"
    )

    def run(*words):
        command = [sys.executable, "-c", code, *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    for words in (
        ("score", telemetry, "--model", model, "--out", "scored"),
        ("report", "scored", "--html", "report.html"),
        ("explain", "scored", "--rank", "1"),
        ("readiness", telemetry),
    ):
        done = run(*words)
        assert done.returncode == 0, done.stderr
    assert len(pd.read_parquet(tmp_path / "scored" / "scores.parquet")) == len(scores)
    for words in (
        ("train", telemetry, "--out", "new"),
        ("demo", "--out", "new"),
        ("drift", telemetry, "--model", model),
        ("evaluate", telemetry, "--model", model),
        ("models", "list"),
        ("score", telemetry, "--model", model, "--out", "new", "--engine", "spark"),
    ):
        done = run(*words)
        assert (done.returncode, done.stdout) == (2, ""), words
        assert re.fullmatch(r"appcadence: [\w ]+ not found; install .*\[(train|spark)\].*\n", done.stderr)
    assert not (tmp_path / "new").exists()


def test_the_extras_hold_what_is_hidden_and_all_of_them():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["all"] == ["appcadence[cli,train,spark,serve,sign]"]
    taken = [line for name in extras if name not in ("all", "dev", "docs") for line in extras[name]]
    names = {re.split(r"[<>=]", line)[0] for line in taken}
    modules = {"scikit-learn": "sklearn", "prometheus-client": "prometheus_client"}
    assert {modules.get(name, name) for name in names} == scorer_alone.OPTIONAL


@pytest.mark.slow
@pytest.mark.network
def test_a_wheel_holds_the_package_and_nothing_else(wheel):
    package = ROOT / "src" / "appcadence"
    sources = {
        str(file.relative_to(package.parent))
        for file in package.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == sources and "appcadence/py.typed" in names


@pytest.mark.slow
@pytest.mark.network
def test_a_wheel_scores_in_a_clean_environment(wheel, trained, tmp_path):
    telemetry, model, scores = trained
    venv.create(tmp_path / "env", with_pip=True)
    programs = tmp_path / "env" / "bin"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    install = [programs / "python", "-m", "pip", "install", "-q", wheel]
    subprocess.run(install, check=True, capture_output=True, env=clean)
    out = tmp_path / "scores.parquet"
    subprocess.run([programs / "python", SCRIPT, telemetry, model, out], check=True, cwd=tmp_path, env=clean)
    assert pd.read_parquet(out)["score"].equals(scores)
    done = subprocess.run([programs / "appcadence", "--help"], capture_output=True, text=True, env=clean)
    assert done.returncode == 2 and "[cli]" in done.stderr and len(done.stderr.splitlines()) == 1
