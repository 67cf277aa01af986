"""One real device, one day: what little can be told is told, and nothing is "nan"."""

import re
import warnings

import pytest
from typer.testing import CliRunner

from appcadence.cli import app

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns about its own type hints while it is imported
    import mlflow

NAN = re.compile(r"\b(nan|inf|NaN|Infinity)\b")


def run(*words):
    done = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == 0 and not NAN.search(done.output), done.output
    return " ".join(done.output.split())


@pytest.mark.slow
def test_a_day_of_one_device_has_no_nan_anywhere(shared_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    run("convert", shared_data / "labelled" / "normal_a", "--out", "telemetry")
    printed = run("train", "telemetry", "--out", "model", "--register")
    assert "one device" in printed and "Registered as models:/appcadence@challenger, version 1." in printed
    assert not NAN.search((tmp_path / "model" / "manifest.json").read_text())
    client = mlflow.MlflowClient()
    (recorded,) = client.search_runs([client.get_experiment_by_name("appcadence").experiment_id])
    assert recorded.data.metrics and all(abs(value) < 1e9 for value in recorded.data.metrics.values())
    assert not NAN.search(str(recorded.data.params)) and not NAN.search(
        recorded.data.tags["mlflow.note.content"]
    )
    for name in ("card.md", "dataset.json"):
        assert not NAN.search(mlflow.artifacts.load_text(f"{recorded.info.artifact_uri}/{name}"))
    run("models", "list")
    run("models", "show", "models:/appcadence@challenger")
    run("convert", shared_data / "labelled" / "androidtester", "--out", "hour")
    assert "too few to tell" in run("evaluate", "hour", "--model", "model")
