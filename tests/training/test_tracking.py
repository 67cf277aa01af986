"""A training published to a real MLflow server, read back over HTTP and scored from the registry."""

import hashlib
import json
import os
import sys
import time
import urllib.request
import warnings
from importlib.metadata import version

import numpy as np
import pytest
from mlflow_server import free_port, mlflow_server

from appcadence.errors import AppcadenceError
from appcadence.features.catalog import SCHEMA_ID
from appcadence.features.extraction import load
from appcadence.models import bundle
from appcadence.serving.scorer import Scorer
from appcadence.telemetry.directory import TelemetryDirectory
from appcadence.telemetry.simulate.fleet import write
from appcadence.training.train import train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # MLflow warns about its own type hints while it is imported
    import mlflow
    import mlflow.pyfunc

from appcadence.serving.pyfunc import NESTED
from appcadence.training.figures import gains
from appcadence.training.publish import fingerprint, plain, publish
from appcadence.training.registry import resolve
from appcadence.training.search import SEARCHED
from appcadence.training.tracking import redacted

FIGURES = {
    "recall_at_budget",
    "precision_recall",
    "benign_scores",
    "reliability",
    "calibration_tail",
    "classifier_gain",
    "stress",
    "rasters",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(training, telemetry directory, bundle directory)."""
    path = tmp_path_factory.mktemp("trained")
    write(path / "telemetry", 8, 4, 1)
    source = TelemetryDirectory(path / "telemetry")
    with pytest.MonkeyPatch.context() as patch:  # eight devices held out by device, for the picture of stress
        patch.setattr("appcadence.training.train.MIN_DEVICES", 8)
        training = train(load(source), search_trials=2)
    bundle.save(training.detector, path / "model")
    return training, source, path / "model"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of an MLflow server of its own, on loopback."""
    with mlflow_server(tmp_path_factory.mktemp("server")) as address:
        yield address


@pytest.fixture(scope="module")
def published(trained, server):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", server)
        return publish(*trained)


def _get(address, path):
    with urllib.request.urlopen(f"{address}{path}", timeout=20) as answer:
        return answer.read()


@pytest.mark.slow
def test_run_is_complete_over_http(published, trained, server):
    training, source, model = trained
    run = json.loads(_get(server, f"/api/2.0/mlflow/runs/get?run_id={published.run_id}"))["run"]
    params = {p["key"]: p["value"] for p in run["data"]["params"]}
    metrics = {m["key"]: m["value"] for m in run["data"]["metrics"]}
    tags = {t["key"]: t["value"] for t in run["data"]["tags"]}
    assert run["info"]["status"] == "FINISHED"
    assert params == {key: str(value) for key, value in training.params.items()}
    assert metrics["average_precision"] == pytest.approx(training.quality.average_precision)
    assert tags["appcadence.bundle"] == bundle.load(model)[1]

    def artifact(name):
        return _get(server, f"/get-artifact?run_uuid={published.run_id}&path={name}")

    for figure in FIGURES:
        assert artifact(f"figures/{figure}.png").startswith(b"\x89PNG")
    card = artifact("card.md").decode()
    for words in (
        "8 devices",
        "no estimate of recall",
        training.detector.card["roughness"],
        "days (2026-03-02 to 2026-03-05)",
        "## Blind spots",
    ):
        assert words in card
    assert json.loads(artifact("dataset.json")) == fingerprint(source)
    environment = artifact("environment.txt").decode()
    for package in ("appcadence", "lightgbm", "numpy", "pyarrow", "scikit-learn"):
        assert f"\n{package}=={version(package)}\n" in environment
    assert environment.startswith("# Python 3.") and SCHEMA_ID in environment.splitlines()[0]
    logged = {entry["dataset"]["name"]: entry for entry in run["inputs"]["dataset_inputs"]}
    assert set(logged) == {f"telemetry.{name}" for name in source.tables()}
    assert {tag["value"] for entry in logged.values() for tag in entry["tags"]} == {"training"}
    for table in source.tables():
        entry = logged[f"telemetry.{table}"]["dataset"]
        assert json.loads(entry["source"]) == {"uri": str(source.path)}
        files = "".join(file["sha256"] for file in fingerprint(source)["tables"][table]["files"])
        assert entry["digest"] == hashlib.sha256(files.encode()).hexdigest()[:32]
    assert artifact("feature_schema.csv").startswith(b"feature,family,unit")
    assert len(artifact("injection.csv").splitlines()) == len(training.injection) + 1
    assert len(artifact("search.csv").splitlines()) == 2 + 1
    assert artifact("stress.csv").startswith(b"period_seconds,jitter,missed,active,lost_flows,lost_names")


@pytest.mark.slow
def test_each_trial_of_the_search_is_a_child_run(published, trained, server):
    client = mlflow.MlflowClient(tracking_uri=server)
    experiment = client.get_experiment_by_name("appcadence").experiment_id
    query = f"tags.mlflow.parentRunId = '{published.run_id}'"
    runs = client.search_runs([experiment], query, order_by=["attributes.start_time ASC"])
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    for run, trial in zip(runs, trained[0].trials.to_dict("records"), strict=True):
        assert {k: float(v) for k, v in run.data.params.items()} == {k: trial[k] for k in SEARCHED}
        assert run.data.metrics == {k: trial[k] for k in trial if k not in SEARCHED}


@pytest.mark.slow
def test_registered_challenger_scores_as_the_bundle_on_disk(
    published, trained, server, monkeypatch, tmp_path
):
    training, _, model = trained
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert published.model_version == "1"
    expected = Scorer.load(model).score_windows(training.example)
    challenger = resolve("models:/appcadence@challenger", tmp_path)
    assert {f.name: f.read_bytes() for f in challenger.iterdir()} == {
        f.name: f.read_bytes() for f in model.iterdir()
    }
    assert Scorer.load(challenger).score_windows(training.example).equals(expected)
    assert resolve(f"runs:/{published.run_id}/model", tmp_path).name == "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = mlflow.pyfunc.load_model("models:/appcadence@challenger")
        scores = loaded.predict(plain(training.example))
        strict = loaded.predict(plain(training.example), params={"alerts_per_device_day": 0.001})
    assert not set(NESTED) & set(scores.columns)
    np.testing.assert_array_equal(scores["score"], expected["score"])
    np.testing.assert_array_equal(scores["p_value"], expected["p_value"])
    assert not strict["alert"].any()
    assert (
        scores["app_id"].where(scores["app_id"].notna(), "").tolist()
        == expected["app_id"].fillna("").tolist()
    )


def test_dead_server_is_one_sentence_and_leaves_the_bundle(trained, monkeypatch, tmp_path):
    before = {f.name: f.read_bytes() for f in trained[2].iterdir()}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://someone:secret@127.0.0.1:{free_port()}")
    began = time.monotonic()
    with pytest.raises(AppcadenceError, match="does not answer") as error:
        publish(*trained)
    assert time.monotonic() - began < 30
    assert "secret" not in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(AppcadenceError, match="does not answer"):
        resolve("models:/appcadence@challenger", tmp_path)
    assert {f.name: f.read_bytes() for f in trained[2].iterdir()} == before


@pytest.mark.slow
def test_what_is_not_there(published, server, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    with pytest.raises(AppcadenceError, match="refused"):
        resolve("models:/appcadence@nobody", tmp_path)
    with pytest.raises(AppcadenceError, match=r"holds no manifest\.json"):
        resolve(f"runs:/{published.run_id}/figures", tmp_path)
    with pytest.raises(AppcadenceError, match="no MLflow model"):
        resolve("models:", tmp_path)


def test_without_mlflow(trained, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(AppcadenceError, match=r"pip install .*(\[train\]|mlflow[<>])"):
        resolve("models:/appcadence@challenger", tmp_path)
    with pytest.raises(AppcadenceError, match=r"pip install .*(\[train\]|mlflow[<>])"):
        publish(*trained)


def test_default_store_is_sqlite_in_the_working_directory(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    info = publish(*trained)
    assert info.model_version == "1"
    assert (tmp_path / "mlflow.db").is_file() and "MLFLOW_TRACKING_URI" not in os.environ
    assert resolve("models:/appcadence/1", tmp_path).name == "model"
    assert capsys.readouterr() == ("", "")


def test_plain_rows_gains_and_redaction(trained):
    rows = plain(trained[0].example)
    assert {str(t) for t in rows.dtypes} <= {"object", "bool", "float64", "int64", "datetime64[ns]"}
    total = gains("feature_names=a b a_distance\nsplit_feature=0 2 1\nsplit_gain=1 2 4\n")
    assert total == {"a": 3.0, "b": 4.0}
    assert redacted("see http://me:pw@host/x") == "see http://host/x"
