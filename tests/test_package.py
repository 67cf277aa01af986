"""The house: root links, the import rule, file sizes, and a wheel that scores in a clean environment."""

import subprocess
import sys
import venv
from pathlib import Path

import pytest
from make import fleet

from appcadence.models import bundle
from appcadence.telemetry.directory import write_directory
from appcadence.training.train import train

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("room", ["telemetry", "features", "models", "training", "serving"])
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


@pytest.mark.slow
@pytest.mark.network
def test_a_wheel_scores_in_a_clean_environment(tmp_path):
    """The wheel alone, no editable install, no MLflow: it loads a bundle and gives the same scores."""
    tables = fleet(devices=5, days=3)
    write_directory(tmp_path / "telemetry", tables)
    detector = train(tables).detector
    bundle.save(detector, tmp_path / "model")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", ROOT],
        check=True,
        capture_output=True,
    )
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    subprocess.run([python, "-m", "pip", "install", "-q", wheel], check=True, capture_output=True)
    code = (
        "import importlib.util, sys; from appcadence.serving import Scorer; "
        "assert importlib.util.find_spec('mlflow') is None; "
        f"scores = Scorer.load(r'{tmp_path / 'model'}').score(r'{tmp_path / 'telemetry'}'); "
        "assert not {'sklearn', 'lightgbm'} & set(sys.modules); "
        f"scores[['score']].to_parquet(r'{tmp_path / 'scores.parquet'}')"
    )
    subprocess.run([python, "-c", code], check=True, cwd=tmp_path)
    import pandas as pd

    from appcadence.serving import Scorer

    here = Scorer.load(tmp_path / "model").score(tables)
    assert pd.read_parquet(tmp_path / "scores.parquet")["score"].equals(here["score"])
