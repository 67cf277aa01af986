"""The guides and notebooks, run as a reader would."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELLS = {"sh": ["sh", "-e", "-c"], "python": [sys.executable, "-c"]}


def run_guide(name, place):
    """Run the `sh` and `python` blocks of a guide in order; consecutive ones of one kind are one script.

    Returns what they printed.
    """
    blocks = [b for b in BLOCK.findall((ROOT / "docs" / name).read_text()) if b[0] in SHELLS]
    assert blocks
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")} | {"PATH": path}
    printed = ""
    for kind, group in itertools.groupby(blocks, lambda block: block[0]):
        script = "\n".join(text for _, text in group)
        done = subprocess.run(
            [*SHELLS[kind], script], cwd=place, env=env, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        printed += done.stdout
    return printed


@pytest.fixture(scope="module")
def retrained(tmp_path_factory):
    """A directory in which the first guide was followed, and what it printed."""
    place = tmp_path_factory.mktemp("retrain")
    return place, run_guide("guide-retrain.md", place)


@pytest.mark.slow
def test_the_guide_to_retraining(retrained):
    place, printed = retrained
    assert "can be judged on" in printed and "Recall by kind" in printed
    assert re.search(r"^(retrain|watch|fine): ", printed, re.MULTILINE)
    assert (place / "model" / "manifest.json").is_file()


@pytest.mark.slow
def test_the_guide_to_the_nightly_job(retrained, tmp_path):
    shutil.copytree(retrained[0] / "fleet", tmp_path / "telemetry")
    shutil.copytree(retrained[0] / "model", tmp_path / "model")
    printed = run_guide("guide-nightly.md", tmp_path)
    assert printed.count("nothing to do") == 1 and "malicious: phone-" in printed
    for day in ("2026-03-05", "2026-03-06"):
        assert (tmp_path / "scored" / f"{day}.html").is_file()
        assert (tmp_path / "scored" / day / "alerts.ecs.jsonl").read_text().strip()
    assert not list((tmp_path / "scored").glob(".*"))


@pytest.mark.slow
def test_the_guide_to_embedding(retrained, tmp_path):
    for name in ("telemetry", "later", "model"):
        (tmp_path / name).symlink_to(retrained[0] / name)
    assert "windows are outliers" in run_guide("guide-embed.md", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["retrain_on_a_local_baseline", "embed_the_scorer"])
def test_a_notebook_runs_and_is_kept_without_outputs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.read(ROOT / "examples" / f"{name}.ipynb", as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
